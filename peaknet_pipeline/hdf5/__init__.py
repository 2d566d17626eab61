"""The one door to HDF5 files: opened within an allowed folder, read within bounds, written whole or not at all."""
