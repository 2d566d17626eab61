"""Run files for tests."""

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.types import Geometry

CXI_DATA = "/entry_1/data_1/data"
HEAD = f"photon_energy = 9500 eV\nclen = 0.1 m\nres = 10000\nadu_per_photon = 1\ndata = {CXI_DATA}\n"
N_PANELS, HEIGHT, WIDTH = 3, 6, 8


def slab_geometry(extra: str = "", *, dims: str = "dim0 = %\ndim1 = ss\ndim2 = fs\n") -> Geometry:
    """Return three 6×8 panels stacked in ss of one slab at /entry_1/data_1/data."""
    return parse_geometry(HEAD + dims + extra + "".join(_panel(k, k * HEIGHT) for k in range(N_PANELS)))


def module_geometry() -> Geometry:
    """Return the same three panels as modules of a 4-D data set (frame, module, ss, fs)."""
    return parse_geometry(
        HEAD
        + "dim0 = %\ndim2 = ss\ndim3 = fs\n"
        + "".join(_panel(k, 0) + f"m{k}/dim1 = {k}\n" for k in range(N_PANELS))
    )


def _panel(k: int, min_ss: int) -> str:
    return (
        f"m{k}/min_fs = 0\nm{k}/max_fs = {WIDTH - 1}\n"
        f"m{k}/min_ss = {min_ss}\nm{k}/max_ss = {min_ss + HEIGHT - 1}\n"
        f"m{k}/corner_x = {20 * k}\nm{k}/corner_y = -3\nm{k}/fs = x\nm{k}/ss = y\n"
    )


def random_stack(n: int, seed: int = 0, dtype: str = "uint16") -> npt.NDArray[np.generic]:
    """Return (n, 3, 6, 8) counts."""
    return np.random.default_rng(seed).poisson(9, (n, N_PANELS, HEIGHT, WIDTH)).astype(dtype)


def write_run(
    path: Path,
    frames: npt.NDArray[np.generic],
    *,
    data_path: str = CXI_DATA,
    mask: npt.NDArray[np.generic] | None = None,
    values: dict[str, object] | None = None,
) -> Path:
    """Write frames as bitshuffle-LZ4 chunks of one frame, with a mask and other data sets."""
    with h5py.File(path, "w") as file:
        file.create_dataset(data_path, data=frames, chunks=(1, *frames.shape[1:]), **hdf5plugin.Bitshuffle())
        if mask is not None:
            file["/entry_1/data_1/mask"] = mask
        for name, value in (values or {}).items():
            file[name] = value
    return path


def write_slab_run(path: Path, n: int = 4, **options: object) -> npt.NDArray[np.generic]:
    """Write a random run of the slab geometry; return its frames as stacks."""
    stack = random_stack(n)
    write_run(path, stack.reshape(n, N_PANELS * HEIGHT, WIDTH), **options)  # type: ignore[arg-type]
    return stack
