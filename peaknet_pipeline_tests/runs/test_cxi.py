"""CXI peak lists hold what CrystFEL reads: slab coordinates, intensities, at most 2,048 peaks, images."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.runs.cxi import read_cxi_peaks, write_cxi_peaks
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline_tests.runs.files import (
    HEIGHT,
    N_PANELS,
    WIDTH,
    module_geometry,
    random_stack,
    slab_geometry,
    write_run,
    write_slab_run,
)


def random_peaks(n: int, n_frames: int, seed: int = 0) -> PeakTable:
    rng = np.random.default_rng(seed)
    return make_table(
        PEAKS,
        {
            "frame": np.sort(rng.integers(0, n_frames, n)),
            "panel": rng.integers(0, N_PANELS, n),
            "fs": rng.uniform(-0.4, WIDTH - 0.6, n),
            "ss": rng.uniform(-0.4, HEIGHT - 0.6, n),
            "intensity": rng.uniform(10, 1e4, n),
            "max_intensity": rng.uniform(1, 1e3, n),
            "background": rng.uniform(0, 9, n),
            "sigma": rng.uniform(0.1, 3, n),
            "snr": rng.uniform(5, 90, n),
            "n_pixels": rng.integers(1, 30, n),
        },
    )


@given(st.integers(0, 60), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=15, deadline=None)
def test_peaks_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, modules: bool
) -> None:
    folder = tmp_path_factory.mktemp("cxi")
    stack = random_stack(4)
    write_run(folder / "raw.h5", stack if modules else stack.reshape(4, -1, WIDTH))
    peaks = random_peaks(n, 4, seed)
    with open_run(folder / "raw.h5", module_geometry() if modules else slab_geometry()) as run:
        report = write_cxi_peaks(folder / "peaks.cxi", peaks, run)
    assert (report.n_frames, report.n_peaks, report.n_clipped_peaks) == (4, n, 0)
    again = read_cxi_peaks(folder / "peaks.cxi", read_geometry(folder / "peaks.geom"))
    assert len(again) == n
    for column in PEAKS.column_names():
        np.testing.assert_allclose(
            again[column].astype(float), peaks[column].astype(float), rtol=1e-6, atol=2e-6
        )


def test_coordinates_are_those_of_the_slab_with_the_first_pixel_at_zero(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "raw.h5", 2)
    row = {
        "frame": [1],
        "panel": [2],
        "fs": [3.25],
        "ss": [1.5],
        "intensity": [50.0],
        "max_intensity": [20.0],
    }
    row |= {"background": [1.0], "sigma": [1.0], "snr": [50.0], "n_pixels": [4]}
    with open_run(tmp_path / "raw.h5", slab_geometry()) as run:
        write_cxi_peaks(tmp_path / "p.cxi", make_table(PEAKS, row), run, provenance={"finder": "test"})
    with h5py.File(tmp_path / "p.cxi") as file:
        result = file["entry_1/result_1"]
        assert result["nPeaks"][:].tolist() == [0, 1]
        assert result["peakXPosRaw"].shape == (2, 2048)
        assert result["peakXPosRaw"][1, 0] == 3.25
        assert result["peakYPosRaw"][1, 0] == 2 * HEIGHT + 1.5
        assert result["peakTotalIntensity"][1, 0] == 50
        assert result["peakMaxIntensity"][1, 0] == 20
        assert not result["peakXPosRaw"][0].any()
        assert file["LCLS/photon_energy_eV"][:].tolist() == [9500.0, 9500.0]
        assert result.attrs["finder"] == "test"
    geometry = read_geometry(tmp_path / "p.geom")
    assert geometry.peak_list_path == "/entry_1/result_1"
    assert "peak_list_type = cxi" in geometry.text


@pytest.mark.parametrize("modules", [False, True])
def test_the_file_is_a_run_with_the_images_mask_and_energy_of_the_raw_one(
    tmp_path: Path, modules: bool
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "out").mkdir()
    stack = random_stack(4)
    mask = np.zeros_like(stack[0], dtype=np.uint8)
    mask[1, 2, 3] = 1
    shape = (lambda a: a) if modules else (lambda a: a.reshape(*a.shape[:-3], -1, WIDTH))
    write_run(tmp_path / "raw" / "raw.cxi", shape(stack), mask=shape(mask))
    with open_run(tmp_path / "raw" / "raw.cxi", module_geometry() if modules else slab_geometry()) as run:
        write_cxi_peaks(tmp_path / "out" / "p.cxi", random_peaks(9, 4), run)
    (tmp_path / "moved").mkdir()
    (tmp_path / "raw").rename(tmp_path / "moved" / "raw")
    (tmp_path / "out").rename(tmp_path / "moved" / "out")  # links are relative
    with open_run(
        tmp_path / "moved" / "out" / "p.cxi", tmp_path / "moved" / "out" / "p.geom", root=tmp_path / "moved"
    ) as copy:
        assert np.array_equal(copy.read(0, 4), stack)
        assert np.argwhere(copy.bad_pixels).tolist() == [[1, 2, 3]]
        assert copy.photon_energy_ev.tolist() == [9500.0] * 4


def test_only_chosen_frames_are_written_when_asked(tmp_path: Path) -> None:
    stack = write_slab_run(tmp_path / "raw.h5", 6)
    peaks = random_peaks(40, 6)
    with open_run(tmp_path / "raw.h5", slab_geometry()) as run:
        report = write_cxi_peaks(tmp_path / "hits.cxi", peaks, run, frames=[1, 2, 5])
    assert report.n_frames == 3
    with open_run(tmp_path / "hits.cxi", tmp_path / "hits.geom") as hits:
        assert np.array_equal(hits.read(0, 3), stack[[1, 2, 5]])
    again = read_cxi_peaks(tmp_path / "hits.cxi", read_geometry(tmp_path / "hits.geom"))
    kept = peaks[peaks["frame"].isin([1, 2, 5])]
    assert again["frame"].tolist() == np.searchsorted([1, 2, 5], kept["frame"]).tolist()
    np.testing.assert_array_equal(again["intensity"], kept["intensity"])


def test_the_strongest_2048_peaks_stay_and_the_rest_is_told(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "raw.h5", 2)
    peaks = random_peaks(5000, 1)
    with open_run(tmp_path / "raw.h5", slab_geometry()) as run:
        report = write_cxi_peaks(tmp_path / "p.cxi", peaks, run)
    assert (report.n_peaks, report.n_clipped_frames, report.n_clipped_peaks) == (2048, 1, 5000 - 2048)
    again = read_cxi_peaks(tmp_path / "p.cxi", read_geometry(tmp_path / "p.geom"))
    assert sorted(again["intensity"]) == sorted(peaks["intensity"])[-2048:]
    kept = peaks[peaks["intensity"] >= again["intensity"].min()]
    np.testing.assert_array_equal(again["intensity"], kept["intensity"])  # still in the table's order


def test_no_peaks_make_a_valid_file(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "raw.h5", 2)
    with open_run(tmp_path / "raw.h5", slab_geometry()) as run:
        write_cxi_peaks(tmp_path / "p.cxi", empty_table(PEAKS), run)
    assert read_cxi_peaks(tmp_path / "p.cxi").empty


def test_peaks_of_another_run_are_refused(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "raw.h5", 2)
    with (
        open_run(tmp_path / "raw.h5", slab_geometry()) as run,
        pytest.raises(RunError, match=r"frame of a peak"),
    ):
        write_cxi_peaks(tmp_path / "p.cxi", random_peaks(50, 9), run)
    assert not (tmp_path / "p.cxi").exists()


def test_a_list_that_claims_more_peaks_than_it_holds_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "p.cxi", "w") as file:
        file["entry_1/result_1/nPeaks"] = np.array([3, 9])
        for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
            file[f"entry_1/result_1/{name}"] = np.zeros((2, 8))
    with pytest.raises(RunError, match=r"nPeaks goes from 3 to 9, peakXPosRaw holds 8"):
        read_cxi_peaks(tmp_path / "p.cxi")


def test_a_file_without_peaks_and_peaks_outside_panels_are_named(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "raw.h5", 2)
    with pytest.raises(RunError, match=r"no readable peak list"):
        read_cxi_peaks(tmp_path / "raw.h5")
    with h5py.File(tmp_path / "p.cxi", "w") as file:
        file["entry_1/result_1/nPeaks"] = np.array([1])
        for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
            file[f"entry_1/result_1/{name}"] = np.full((1, 8), 500.0)
    with pytest.raises(RunError, match=r"outside every panel, found 1 peaks, the first at fs 500.0"):
        read_cxi_peaks(tmp_path / "p.cxi", slab_geometry())


def _write_for_ever(folder: Path) -> None:
    peaks = random_peaks(20000, 4)
    with open_run(folder / "raw.h5", slab_geometry()) as run:
        while True:
            write_cxi_peaks(folder / "p.cxi", peaks, run)


@pytest.mark.parametrize("delay", [0.05, 0.12, 0.31])
def test_a_kill_in_the_middle_leaves_no_half_file(tmp_path: Path, delay: float) -> None:
    write_slab_run(tmp_path / "raw.h5", 4)
    with open_run(tmp_path / "raw.h5", slab_geometry()) as run:
        write_cxi_peaks(tmp_path / "p.cxi", random_peaks(20000, 4), run)
    writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(tmp_path,))
    writer.start()
    while not list(tmp_path.glob(".p.cxi.*")) and writer.is_alive():
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    assert len(read_cxi_peaks(tmp_path / "p.cxi", slab_geometry())) == 4 * 2048
