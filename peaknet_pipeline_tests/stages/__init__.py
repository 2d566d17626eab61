"""Tests of the composed stages."""
