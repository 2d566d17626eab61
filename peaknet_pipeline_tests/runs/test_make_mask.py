"""One mask from every source, each of them accounted for."""

from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.geometry.maps import resolution_map
from peaknet_pipeline.runs.bad_pixels import BadPixelParams, find_bad_pixels
from peaknet_pipeline.runs.dark import find_dark_outliers
from peaknet_pipeline.runs.make_mask import MaskParams, make_mask
from peaknet_pipeline.runs.masks import read_layers, read_mask, write_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.rings import RingParams, drop_ring_peaks
from peaknet_pipeline.runs.statistics import StatisticsAccumulator
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import make_table
from peaknet_pipeline_tests.runs.files import (
    module_geometry,
    random_stack,
    slab_geometry,
    write_run,
    write_slab_run,
)


def test_without_wishes_only_bad_pixels_are_masked(realdata: Path) -> None:
    folder = realdata / "crystfel_simulated"
    with open_run(folder / "sim1k.cxi", folder / "sim1k.geom") as run:
        params = BadPixelParams(max_frames=8)
        plain, report = find_bad_pixels(run, params=params), make_mask(run, bad_pixel_params=params)
        assert np.array_equal(plain.bad_pixels, report.bad_pixels)
        assert plain.sources == report.sources
        wished = make_mask(
            run, params=MaskParams(shadow=True, exclude_ice=True, edge_width=2), bad_pixel_params=params
        )
    added = {source.name: source.n_new for source in wished.sources}
    assert sum(added.values()) == wished.bad_pixels.sum()
    assert added["edges"] > 4000
    assert added["rings"] > 10000
    assert list(added)[-3:] == ["shadow", "edges", "rings"]


def test_drawn_masks_and_chips_are_added(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi", 4)
    drawn = np.zeros(random_stack(1).shape[1:], bool)
    drawn[1, 2, 3] = True
    write_mask(drawn, tmp_path / "drawn.h5")
    with open_run(tmp_path / "run.cxi", slab_geometry()) as run:
        report = make_mask(
            run, params=MaskParams(mask_files=(str(tmp_path / "drawn.h5"),), chip_ss=3, chip_fs=4)
        )
    assert report.bad_pixels[1, 2, 3]
    assert {s.name: s.n_new for s in report.sources}["drawn.h5"] == 1
    assert report.bad_pixels[0, 2].all()
    assert report.bad_pixels[0, 0].tolist() == [False, False, False, True, True, False, False, False]


def test_every_layer_can_be_read_back_from_the_file(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi", 4)
    with open_run(tmp_path / "run.cxi", slab_geometry()) as run:
        report = make_mask(run, params=MaskParams(edge_width=1, chip_ss=3, chip_fs=4))
    write_mask(report.bad_pixels, tmp_path / "m.h5", sources=report.sources, layers=report.layers)
    layers = read_layers(tmp_path / "m.h5")
    assert list(layers) == ["run", "no value", "hot", "noisy", "dead", "edges", "chips"]
    for name, layer in report.layers.items():
        assert np.array_equal(layers[name], layer)
    assert np.array_equal(np.logical_or.reduce(list(layers.values())), report.bad_pixels)
    assert read_mask(tmp_path / "m.h5")[1] == report.sources
    assert {s.name: s.n_bad for s in report.sources}["chips"] == layers["chips"].sum()


def test_a_dark_run_gives_away_hot_silent_and_noisy_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    dark = rng.normal(3000, 2.0, (40, 3, 6, 8)).astype(np.float32)
    dark[:, 0, 2, 2] += 400
    dark[:, 1, 3, 4] = 3000
    dark[:, 2, 4, 6] = rng.normal(3000, 40, 40)
    write_run(tmp_path / "dark.cxi", dark)
    write_run(tmp_path / "run.cxi", rng.poisson(50, dark.shape).astype(np.float32))
    with open_run(tmp_path / "run.cxi", module_geometry()) as run:
        report = make_mask(run, params=MaskParams(dark_files=(str(tmp_path / "dark.cxi"),)))
    found = np.argwhere(report.layers["dark dark.cxi"]).tolist()
    assert found == [[0, 2, 2], [1, 3, 4], [2, 4, 6]]


def test_a_dark_run_of_a_counting_detector_is_mostly_zero_and_good() -> None:
    frames = np.zeros((50, 1, 40, 40), np.uint16)
    frames[:, 0, 7, 9] = 3
    frames[::25, 0, 20, 20] = 1
    statistics = StatisticsAccumulator((1, 40, 40))
    statistics.add(frames)
    outliers = find_dark_outliers(statistics.result(), np.zeros((1, 40, 40), bool))
    assert np.argwhere(outliers).tolist() == [[0, 7, 9]]


def test_a_dark_run_of_another_detector_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run.cxi", np.ones((9, 18, 8), np.uint16))
    write_run(tmp_path / "dark.cxi", np.ones((9, 12, 8), np.uint16))
    with (
        open_run(tmp_path / "run.cxi") as run,
        pytest.raises(RunError, match="dark run is of another detector"),
    ):
        make_mask(run, params=MaskParams(dark_files=(str(tmp_path / "dark.cxi"),)))


def test_a_spot_that_stays_over_a_few_frames_is_not_hot(tmp_path: Path) -> None:
    """As near the spindle of a rotation; a hot pixel beside it is."""
    rng = np.random.default_rng(6)
    frames = rng.poisson(100, (12, 60, 60)).astype(np.float64)
    y, x = np.mgrid[:60, :60]
    spot = np.exp(-((y - 30.2) ** 2 + (x - 20.4) ** 2) / (2 * 0.9**2))
    rocking = np.array([90, 120, 200, 400, 1000, 9000, 30000, 5000, 900, 350, 180, 100])
    frames += rocking[:, None, None] * 3 * spot
    frames[:, 40, 45] += 3000
    write_run(tmp_path / "run.cxi", frames.astype(np.uint16))
    with open_run(tmp_path / "run.cxi") as run:
        report = make_mask(run)
    assert np.argwhere(report.hot).tolist() == [[0, 40, 45]]
    assert report.bad_pixels.sum() == 1


def test_peaks_on_left_out_rings_are_dropped_and_others_stay() -> None:
    peaks = make_table(
        PEAKS,
        {c.name: np.zeros(4) for c in PEAKS.columns}
        | {"inv_d": np.array([1 / 3.67, 1 / 3.0, np.nan, 1 / 2.25 + 0.0035])},
    )
    assert len(drop_ring_peaks(peaks, RingParams())) == 4
    kept = drop_ring_peaks(peaks, RingParams(exclude_ice=True))["inv_d"].to_numpy()
    assert kept[0] == pytest.approx(1 / 3.0)
    assert np.isnan(kept[1])
    assert len(kept) == 2


def test_rings_that_the_run_shows_are_left_out_where_they_are(tmp_path: Path) -> None:
    """A salt ring at 4.4 Å that no list of ice rings knows."""
    text = (
        "photon_energy = 9500 eV\nclen = 0.1 m\nres = 5000\nadu_per_photon = 1\ndata = /entry_1/data_1/data\n"
        "dim0 = %\ndim1 = ss\ndim2 = fs\n"
        "p/min_fs = 0\np/max_fs = 399\np/min_ss = 0\np/max_ss = 399\np/corner_x = -200\np/corner_y = -200\n"
        "p/fs = x\np/ss = y\n"
    )
    geometry = parse_geometry(text)
    inv_d = resolution_map(geometry, 9500.0)
    level = 20 * np.exp(-inv_d / 0.1) + 6 + 12 * np.exp(-0.5 * ((inv_d - 1 / 4.4) / 0.0012) ** 2)
    frames = np.random.default_rng(0).poisson(level, (12, *level.shape)).astype(np.uint16)
    write_run(tmp_path / "run.cxi", frames[:, 0])
    with open_run(tmp_path / "run.cxi", geometry) as run:
        plain = make_mask(run)
        report = make_mask(run, params=MaskParams(exclude_found=True))
        peaks_only = make_mask(run, params=MaskParams(exclude_found=True, ring_mode="peaks"))
    on_ring = np.abs(inv_d - 1 / 4.4) < 0.002
    assert report.layers["rings"][on_ring].all()
    assert not report.layers["rings"][np.abs(inv_d - 1 / 4.4) > 0.008].any()
    assert np.array_equal(peaks_only.bad_pixels, plain.bad_pixels)


def test_what_needs_a_geometry_says_so(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi", 4)
    with open_run(tmp_path / "run.cxi") as run, pytest.raises(RunError, match=r"shadow needs a geometry"):
        make_mask(run, params=MaskParams(shadow=True))
