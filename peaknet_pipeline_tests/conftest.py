"""Fixtures for every test."""

import os
from pathlib import Path

import pytest

# Before torch and numba: small networks, and a core per worker; numba's threads would become torch's too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton: its kernels run in its interpreter


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real diffraction data: PEAKNET_REALDATA, or ../shared/realdata beside the project."""
    project = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("PEAKNET_REALDATA", project.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip("no real data: set PEAKNET_REALDATA to its folder")
    return folder
