"""The truth of simulated runs, where there is one."""

from pathlib import Path

import h5py

from peaknet_pipeline.simulate.truth import Truth, read_truth


def read_truth_of(path: Path) -> Truth | None:
    """Return a simulated run's truth, or None for a real one."""
    with h5py.File(path, "r") as file:
        if not file.attrs.get("simulated", False):
            return None
    return read_truth(path)
