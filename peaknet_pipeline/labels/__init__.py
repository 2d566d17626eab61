"""Teaching material: label maps, their storage, the split by run, curation."""
