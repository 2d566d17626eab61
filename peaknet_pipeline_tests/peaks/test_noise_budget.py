"""A noise budget is kept on frames that did not choose it, for symmetric and for skewed noise, whatever spots there are."""

import numpy as np
import pytest

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.peaks.noise_budget import SKEWED, keep_budget, mirrored, skewness
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params

SHAPE = (1, 256, 256)
BAD = np.zeros(SHAPE, dtype=bool)
RADIUS = np.hypot(*(np.indices(SHAPE[1:]) - 128.0)).astype(np.float32)[None]
ONE = np.ones(1)
BUDGET = 30.0


def noise(kind: str, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        return (20.0 + 3.0 * rng.standard_normal((n, *SHAPE))).astype(np.float32)
    return rng.poisson({"photons": 0.4, "many photons": 400.0}[kind], (n, *SHAPE)).astype(np.float32)


def add_spots(frames: np.ndarray, n_spots: int, height: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    more = frames.copy()
    for frame in more[::2]:  # every second frame is a hit
        for ss, fs in rng.integers(4, 252, (n_spots, 2)):
            frame[0, ss : ss + 2, fs : fs + 2] += height
    return more


def settle(frames: np.ndarray, budget: float = BUDGET) -> Peakfinder8Params:
    return keep_budget(
        frames, Peakfinder8Params(), budget=budget, radius=RADIUS, bad_pixels=BAD, adu_per_photon=ONE
    )


def false_per_mpix(frames: np.ndarray, params: Peakfinder8Params) -> float:
    return len(Peakfinder8(RADIUS, BAD, params).find(frames)) / (frames.size / 1e6)


@pytest.mark.parametrize("kind", ["gaussian", "photons", "many photons"])
def test_fresh_noise_gives_no_more_false_peaks_than_the_budget_and_spots_change_little(kind):
    frames = add_spots(noise(kind, 24, 1), 25, 20.0 if kind == "gaussian" else 60.0, 2)
    chosen = settle(frames)
    found = false_per_mpix(noise(kind, 40, 3), chosen)
    assert found < 2.0 * BUDGET
    # Not far too strict either: a quarter of an SNR lower, or half of one, would exceed it.
    looser = Peakfinder8Params.from_mapping({**chosen.to_dict(), "min_snr": chosen.min_snr - 0.75})
    assert false_per_mpix(noise(kind, 40, 3), looser) > 0.5 * BUDGET
    assert abs(chosen.min_snr - settle(noise(kind, 24, 5)).min_snr) <= 0.75


def test_a_larger_budget_never_asks_for_a_higher_snr():
    frames = noise("gaussian", 12, 7)
    snrs = [settle(frames, budget).min_snr for budget in (1.0, 10.0, 100.0)]
    assert snrs == sorted(snrs, reverse=True)
    assert snrs[0] > snrs[-1]


def test_hot_clusters_that_no_mask_knows_do_not_make_the_choice_stricter():
    frames = noise("photons", 16, 11)
    hot = frames.copy()
    for ss, fs in np.random.default_rng(2).integers(5, 250, (12, 2)):
        hot[:, 0, ss : ss + 2, fs : fs + 2] += 40.0
    assert settle(hot, 10.0).min_snr <= settle(frames, 10.0).min_snr + 0.5


def test_photon_counts_are_skewed_and_read_noise_is_not():
    assert skewness(noise("photons", 4, 1), BAD, ONE) > SKEWED
    assert abs(skewness(noise("gaussian", 4, 1), BAD, ONE)) < SKEWED / 2
    assert skewness(noise("many photons", 4, 1), BAD, ONE) < SKEWED


def test_a_mirrored_frame_keeps_its_background_and_turns_spots_into_holes():
    frames = add_spots(noise("gaussian", 2, 1), 5, 100.0, 2)
    image = mirrored(frames, BAD, ONE)
    assert np.median(image) == pytest.approx(np.median(frames), abs=0.2)
    assert image.std() == pytest.approx(frames.std(), rel=0.05)
    top = np.unravel_index(np.argmax(frames), frames.shape)
    assert image[top] < frames.min()


def test_no_frames_and_no_budget_are_refused():
    with pytest.raises(ParameterError, match="no noise to measure"):
        settle(noise("gaussian", 0, 1))
    with pytest.raises(ParameterError, match="no noise to measure"):
        settle(noise("gaussian", 1, 1), budget=0.0)
