"""Experiments with known truth: crystal, diffraction, background, detector."""
