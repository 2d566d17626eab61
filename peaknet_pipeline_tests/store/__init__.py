"""Tests of the store: keys, settings and provenance."""
