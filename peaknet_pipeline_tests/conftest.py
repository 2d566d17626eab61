"""Fixtures for every test."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small networks, and a core per worker


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real diffraction data: PEAKNET_REALDATA, or ../shared/realdata beside the project."""
    project = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("PEAKNET_REALDATA", project.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip("no real data: set PEAKNET_REALDATA to its folder")
    return folder
