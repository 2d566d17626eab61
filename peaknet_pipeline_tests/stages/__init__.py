"""Tests of the stages room."""
