"""The truth of simulated runs, where there is one."""

from pathlib import Path

from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.simulate.truth import Truth, read_truth


def read_truth_of(path: Path) -> Truth | None:
    """Return a simulated run's truth, or None for a real one."""
    with LinkedFiles(path) as files:
        if not files.file.attrs.get("simulated", False):
            return None
    return read_truth(path)
