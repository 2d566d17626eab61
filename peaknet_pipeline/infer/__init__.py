"""Frames to peaks with the network: engine, decoding, the producer-consumer stream."""
