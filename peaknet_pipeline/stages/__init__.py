"""The stages: one asset each, which reads from the store, calls a step and writes."""
