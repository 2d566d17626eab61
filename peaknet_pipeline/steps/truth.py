"""The truth of simulated runs, where there is one."""

from collections.abc import Sequence
from pathlib import Path

from peaknet_pipeline.hdf5.attributes import read_attribute
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.simulate.truth import Truth, read_truth

NAMES_A_RUN = (".psana", ".lst")
"""Endings of files that name a run and hold no frames."""


def read_truth_of(files: Sequence[Path]) -> Truth | None:
    """Return the truth of a simulated run, which is one HDF5 file; None for a real run."""
    path = files[0]
    if len(files) > 1 or path.is_dir() or path.suffix.lower() in NAMES_A_RUN:
        return None
    with LinkedFiles(path) as opened:
        if not read_attribute(opened.file, "simulated", False):
            return None
    return read_truth(path)
