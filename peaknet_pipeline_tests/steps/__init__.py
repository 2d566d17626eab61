"""Tests of steps: rooms composed on arrays and runs."""
