"""Peak-level scores of maps whose outcome is known by construction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.learn.crops import Crop, ValidationPanel, panel_from_crop
from peaknet_pipeline.learn.validate import (
    PeakScores,
    choose_threshold,
    decode_panel,
    match_centres,
    score_panels,
)


def panel_of(
    centres: list[tuple[float, float]], snr: list[float], shape: tuple[int, int] = (40, 40)
) -> ValidationPanel:
    return ValidationPanel(
        image=np.zeros(shape, dtype=np.float32),
        good=np.ones(shape, dtype=bool),
        label=np.zeros(shape, dtype=np.uint8),
        centres=np.array(centres, dtype=np.float32).reshape(-1, 2),
        snr=np.array(snr, dtype=np.float32),
    )


def map_of(pixels: dict[tuple[int, int], float], shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    probability = np.zeros(shape, dtype=np.float32)
    for pixel, value in pixels.items():
        probability[pixel] = value
    return probability


def test_scores_count_hits_misses_and_false_peaks() -> None:
    panel = panel_of([(10, 10), (20, 20), (30, 5)], [4.0, 8.0, 20.0])
    probability = map_of({(10, 11): 0.9, (30, 5): 0.9, (5, 35): 0.9, (35, 35): 0.3})
    scores = score_panels([probability], [panel], threshold=0.5)
    assert (scores.n_true, scores.n_found, scores.n_matched) == (3, 3, 2)
    assert scores.precision == scores.recall == scores.f1 == pytest.approx(2 / 3)
    assert scores.centre_rms == pytest.approx(np.sqrt(0.5))
    assert scores.band_recall == {"3-6": 1.0, "6-12": 0.0, "12-inf": 1.0}


def test_peaks_on_ignore_count_neither_way() -> None:
    panel = panel_of([(10, 10)], [9.0])
    panel.label[20:24, 20:24] = 255
    scores = score_panels([map_of({(10, 10): 0.9, (22, 22): 0.9})], [panel], threshold=0.5)
    assert (scores.n_found, scores.n_matched, scores.precision) == (1, 1, 1.0)


def test_one_true_peak_is_matched_once() -> None:
    scores = score_panels([map_of({(10, 9): 0.9, (10, 11): 0.9})], [panel_of([(10, 10)], [9])], threshold=0.5)
    assert (scores.n_found, scores.n_matched) == (2, 1)


def test_diagonal_pixels_are_one_peak_with_a_weighted_centre() -> None:
    found = decode_panel(map_of({(10, 10): 0.9, (11, 11): 0.6}), threshold=0.5)
    np.testing.assert_allclose(found, [[10.4, 10.4]], atol=1e-5)
    assert len(decode_panel(map_of({(10, 10): 0.9}), threshold=0.5, min_pixels=2)) == 0


def test_the_threshold_with_the_best_f1_is_chosen() -> None:
    panels = [panel_of([(10, 10), (20, 20)], [9, 9])]
    maps = [map_of({(10, 10): 0.95, (20, 20): 0.55, (30, 30): 0.35})]
    scores = choose_threshold(maps, panels)
    assert scores.threshold == 0.4
    assert scores.f1 == 1


def test_blank_panels_score_well_only_if_nothing_is_found() -> None:
    blank = panel_of([], [])
    assert score_panels([map_of({})], [blank], threshold=0.5).f1 == 1
    noisy = score_panels([map_of({(3, 3): 0.9})], [blank], threshold=0.5)
    assert (noisy.f1, noisy.precision, noisy.centre_rms) == (0, 0, None)


def test_no_panels_is_an_error() -> None:
    with pytest.raises(LabelError, match="no validation panels"):
        choose_threshold([], [])


def test_label_components_become_true_peaks() -> None:
    label = np.zeros((20, 20), dtype=np.uint8)
    label[4:7, 4:7] = 1
    label[12, 12] = label[13, 13] = 1
    label[0, 0] = 255
    panel = panel_from_crop(Crop(np.zeros((20, 20), np.float32), np.ones((20, 20), bool), label))
    np.testing.assert_allclose(panel.centres, [[5, 5], [12.5, 12.5]])
    assert np.isnan(panel.snr).all()


def test_scores_survive_json() -> None:
    scores = PeakScores(0.4, 10, 9, 8, 0.3, {"3-6": 0.5})
    assert PeakScores.from_dict(scores.to_dict()) == scores


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 12), m=st.integers(0, 12))
def test_matching_is_symmetric_one_to_one_and_near(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 12, (n, 2)).astype(np.float32), rng.uniform(0, 12, (m, 2)).astype(np.float32)
    rows, columns = match_centres(a, b, 3.0)
    back = match_centres(b, a, 3.0)
    assert len(set(rows)) == len(rows) == len(set(columns)) == len(back[0])
    assert (np.hypot(*(a[rows] - b[columns]).T) <= 3.0).all()
