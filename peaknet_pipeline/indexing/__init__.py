"""Peaks to lattices: q vectors, the known-cell indexer, prediction, CrystFEL streams."""
