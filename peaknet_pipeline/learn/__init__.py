"""The network: architecture, normalisation, losses, training, distillation, checkpoints, registry."""
