"""CXI files read back as CrystFEL reads them: geometry by cfelpyutils, lists and images by plain h5py.

CrystFEL's rules: nPeaks rows of peakXPosRaw (fs) and peakYPosRaw (ss), half a pixel added, each peak in the one panel
whose min/max_fs/ss window of the slab contains it, intensities from peakTotalIntensity.
"""

import warnings
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.cxi_append import CxiFile
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import MAX_CXI_PEAKS, FrameArray, Geometry
from peaknet_pipeline_tests.runs.files import (
    HEIGHT,
    N_PANELS,
    WIDTH,
    module_geometry,
    random_stack,
    slab_geometry,
    write_run,
)

N_FRAMES = 6
HITS = [1, 2, 5]


def peaks_on_pixels(stack: FrameArray, n: int = 60, seed: int = 1) -> PeakTable:
    """Peaks on random pixels, each as intense as its pixel."""
    rng = np.random.default_rng(seed)
    frame = np.sort(rng.integers(0, len(stack), n))
    panel, ss, fs = (rng.integers(0, high, n) for high in (N_PANELS, HEIGHT, WIDTH))
    rows = {"frame": frame, "panel": panel, "fs": fs + rng.uniform(-0.4, 0.4, n), "ss": ss + 0.25}
    rows |= {"intensity": stack[frame, panel, ss, fs] + 1.0, "max_intensity": np.ones(n)}
    rows |= {"background": np.ones(n), "sigma": np.ones(n), "snr": np.full(n, 9.0), "n_pixels": np.ones(n)}
    return make_table(PEAKS, rows)


def as_crystfel_reads(path: Path) -> list[list[tuple[str, float, float, float, float]]]:
    """Return, for each frame, its peaks: panel's name, fs and ss in the panel, intensity, value of the pixel there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from cfelpyutils.geometry import load_crystfel_geometry
    detector: Any = load_crystfel_geometry(str(path.with_suffix(".geom"))).detector
    panels = detector["panels"]
    found: list[list[tuple[str, float, float, float, float]]] = []
    with h5py.File(path) as file:
        result = file["entry_1/result_1"]
        first = next(iter(panels.values()))
        images = file[first["data"]]
        assert file[first["mask0_data"]].shape == images.shape[1:]
        for row, n in enumerate(result["nPeaks"][...]):
            assert n <= MAX_CXI_PEAKS
            x, y, intensity = (
                result[name][row, :n].astype(float)
                for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity")
            )
            image = images[row]
            peaks = []
            for fs, ss, total in zip(x + 0.5, y + 0.5, intensity, strict=True):
                (name,) = (
                    name
                    for name, p in panels.items()
                    if p["orig_min_fs"] <= fs < p["orig_max_fs"] + 1
                    and p["orig_min_ss"] <= ss < p["orig_max_ss"] + 1
                )
                panel = panels[name]
                local = fs - panel["orig_min_fs"], ss - panel["orig_min_ss"]
                peaks.append((name, *local, total, float(image[int(ss), int(fs)])))
            found.append(peaks)
    return found


def assert_reads_back(path: Path, peaks: PeakTable, geometry: Geometry, frames: list[int]) -> None:
    names = [panel.name for panel in geometry.panels]
    read = as_crystfel_reads(path)
    assert len(read) == len(frames)
    for found, frame in zip(read, frames, strict=True):
        ours = peaks[peaks["frame"] == frame]
        assert [peak[0] for peak in found] == [names[p] for p in ours["panel"]]
        np.testing.assert_allclose([peak[1] - 0.5 for peak in found], ours["fs"], atol=1e-4)
        np.testing.assert_allclose([peak[2] - 0.5 for peak in found], ours["ss"], atol=1e-4)
        np.testing.assert_allclose([peak[3] for peak in found], ours["intensity"], rtol=1e-6)
        np.testing.assert_allclose([peak[4] + 1.0 for peak in found], ours["intensity"], rtol=1e-6)


@pytest.mark.parametrize("modules", [False, True])
@pytest.mark.parametrize("images", ["link", "copy"])
@pytest.mark.parametrize("frames", [None, HITS])
def test_a_runs_file_reads_back(tmp_path: Path, modules: bool, images: Any, frames: list[int] | None) -> None:
    stack = random_stack(N_FRAMES)
    geometry = module_geometry() if modules else slab_geometry()
    write_run(tmp_path / "raw.h5", stack if modules else stack.reshape(N_FRAMES, -1, WIDTH))
    peaks = peaks_on_pixels(stack)
    with open_run(tmp_path / "raw.h5", geometry) as run:
        write_cxi_peaks(tmp_path / "p.cxi", peaks, run, frames=frames, images=images)
    if images == "copy":
        (tmp_path / "raw.h5").unlink()
    assert_reads_back(tmp_path / "p.cxi", peaks, geometry, frames or list(range(N_FRAMES)))


@pytest.mark.parametrize("modules", [False, True])
def test_a_growing_file_reads_back(tmp_path: Path, modules: bool) -> None:
    stack = random_stack(N_FRAMES)
    geometry = module_geometry() if modules else slab_geometry()
    peaks = peaks_on_pixels(stack)
    order = [3, 2, 0, 1, 5, 4]
    with CxiFile(tmp_path / "live.cxi", geometry, np.zeros(stack.shape[1:], bool)) as file:
        for batch in (order[:1], order[1:4], order[4:]):
            file.append(peaks, stack[batch], np.array(batch))
    assert_reads_back(tmp_path / "live.cxi", peaks, geometry, order)
    with h5py.File(tmp_path / "live.cxi") as written:
        assert written["entry_1/result_1/frame"][...].tolist() == order
        assert written["entry_1/data_1/data"].chunks[0] == 1


def test_a_growing_file_clips_and_tells(tmp_path: Path) -> None:
    stack = random_stack(2)
    peaks = peaks_on_pixels(stack, n=5000).assign(frame=np.int32(1))
    with CxiFile(tmp_path / "live.cxi", slab_geometry(), np.zeros(stack.shape[1:], bool)) as file:
        file.append(peaks, stack, np.array([0, 1]))
    assert file.n_clipped_peaks == 5000 - MAX_CXI_PEAKS
    with h5py.File(tmp_path / "live.cxi") as written:
        assert written["entry_1/result_1/nPeaks"][...].tolist() == [0, MAX_CXI_PEAKS]


def test_a_growing_file_without_frames_is_valid_and_with_an_error_absent(tmp_path: Path) -> None:
    bad = np.zeros((N_PANELS, HEIGHT, WIDTH), dtype=bool)
    with CxiFile(tmp_path / "none.cxi", slab_geometry(), bad):
        pass
    assert as_crystfel_reads(tmp_path / "none.cxi") == []
    (tmp_path / "broken").mkdir()
    stack = random_stack(2)
    with (
        pytest.raises(RunError, match="change their type"),
        CxiFile(tmp_path / "broken" / "b.cxi", slab_geometry(), bad) as file,
    ):
        file.append(empty_table(PEAKS), stack, np.arange(2))
        file.append(empty_table(PEAKS), stack.astype(np.float64), np.arange(2, 4))
    assert list((tmp_path / "broken").iterdir()) == []
