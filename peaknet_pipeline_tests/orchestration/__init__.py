"""Tests of the Dagster rooms."""
