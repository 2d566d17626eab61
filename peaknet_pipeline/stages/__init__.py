"""The chain's stages as plain functions on files, shared by the command line and the Dagster assets."""
