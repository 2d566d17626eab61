"""Tests of the peaks room."""
