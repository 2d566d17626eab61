"""The parameter scan: the same peaks as setting by setting, with the work shared."""

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.peaks import peakfinder8_frame
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params, find_peaks
from peaknet_pipeline.peaks.scan import (
    ScanParams,
    background_thresholds,
    best_setting,
    parameter_grid,
    scan_parameters,
)
from peaknet_pipeline_tests.peaks.peak_scenes import radius_map, spotty_frame

SHAPE = (2, 80, 96)
RADIUS = radius_map(SHAPE)
GOOD = np.zeros(SHAPE, bool)
FRAMES = np.stack([spotty_frame(seed, SHAPE, RADIUS) for seed in range(3)])
SCAN = ScanParams(
    threshold=(10, 60), min_snr=(3.53, 6.01), min_pix=(1, 4), max_pix=(20, 200), local_bg_radius=(2, 4)
)


def scan(grid, score):
    """Scan the frames."""
    return scan_parameters(FRAMES, radius=RADIUS, bad_pixels=GOOD, grid=grid, score=score, n_threads=1)


def test_every_setting_is_scored_with_its_own_peaks():
    grid = parameter_grid(SCAN, Peakfinder8Params(max_res=90))
    seen = {}
    table = scan(grid, lambda peaks, params: seen.update({params: peaks}) or {"total": peaks.intensity.sum()})
    assert len(table) == len(grid) == 32
    assert table.n_peaks.nunique() > 10
    for i, params in enumerate(grid):
        alone = find_peaks(FRAMES, radius=RADIUS, bad_pixels=GOOD, params=params)
        pd.testing.assert_frame_equal(seen[params], alone)
        assert table.n_peaks[i] == len(alone)
        assert table.threshold[i] == params.threshold


def test_statistics_are_shared(monkeypatch):
    calls = []
    original = peakfinder8_frame.background.clip_candidates
    monkeypatch.setattr(
        peakfinder8_frame.background, "clip_candidates", lambda *args: calls.append(1) or original(*args)
    )
    grid = parameter_grid(SCAN)
    scan(grid, lambda peaks, params: {})
    assert len(calls) == len(FRAMES) * 4 < len(FRAMES) * len(grid)


def test_the_best_setting_has_the_highest_figure_and_then_the_fewest_peaks():
    grid = parameter_grid(SCAN)
    table = scan(grid, lambda peaks, params: {"yield": float(params.threshold == 60)})
    best = best_setting(table, "yield")
    assert best in grid
    assert best.threshold == 60
    chosen = table[(table.threshold == 60)]
    assert chosen.n_peaks.min() == len(find_peaks(FRAMES, radius=RADIUS, bad_pixels=GOOD, params=best))


def test_an_unknown_figure_is_refused():
    table = scan(parameter_grid(SCAN)[:1], lambda peaks, params: {"yield": np.nan})
    for figure in ("yield", "other"):
        with pytest.raises(ParameterError, match="no such figure"):
            best_setting(table, figure)


def test_an_empty_list_of_values_is_refused():
    with pytest.raises(ParameterError, match="empty list"):
        parameter_grid(ScanParams(threshold=(9,), min_pix=()))


def test_variants_may_not_change_the_statistics():
    finder = Peakfinder8(RADIUS, GOOD, Peakfinder8Params())
    with pytest.raises(ParameterError, match="leave the statistics"):
        finder.find_variants(FRAMES, [Peakfinder8Params(min_snr=7)])


@pytest.mark.parametrize(("level", "gain"), [(0.05, 1.0), (30.0, 1.0), (30.0, 40.0), (2000.0, 1.0)])
def test_thresholds_follow_the_background_whatever_the_detector(level, gain):
    frames = (np.random.default_rng(0).poisson(level, (3, *SHAPE)) * gain).astype(np.float32)
    frames[:, 0, 40, 40] = 1e6
    frames[0, 1] = np.nan
    sigma = gain * np.sqrt(level)
    found = np.array(background_thresholds(frames, GOOD, (0, 4, 64)))
    expected = gain * np.median(np.random.default_rng(0).poisson(level, 10000)) + np.array([0, 4, 64]) * sigma
    np.testing.assert_allclose(
        found, np.maximum(expected, 0.01 * sigma), atol=0.35 * max(sigma, 1) * 4, rtol=0.3
    )
    assert (found > 0).all()


def test_thresholds_need_good_pixels():
    with pytest.raises(ParameterError, match="no good pixels"):
        background_thresholds(FRAMES, np.ones(SHAPE, bool), (0, 4))
