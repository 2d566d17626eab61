"""Tests, mirroring the package; reference/ holds answers made by independent programs."""
