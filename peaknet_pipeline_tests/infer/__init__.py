"""Inference: labelling, decoding, the engine and the stream."""
