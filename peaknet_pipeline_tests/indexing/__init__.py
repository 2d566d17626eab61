"""Tests of indexing: cells, the known-cell indexer, its gate and control, prediction, integration, streams."""
