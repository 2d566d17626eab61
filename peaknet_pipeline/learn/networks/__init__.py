"""The architectures: stems, encoders, necks and heads as torch modules."""
