"""The shipped network's teaching material is true, repeats itself, and its recipe trains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.learn.checkpoint import read_checkpoint
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import Experiment, RunConditions
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.steps import teach_shipped
from peaknet_pipeline.steps.teach_shipped import ShippedRecipe, train_shipped, validation_panels
from peaknet_pipeline.steps.truth_crops import draw_frames, sharpen, store_crops
from peaknet_pipeline.steps.truth_windows import (
    FLANK,
    TeachingParameters,
    Window,
    add_diffuse,
    add_halos,
    disturb_window,
    label_window,
)

SMALL = TeachingParameters(
    n_experiments=2, frames_per_experiment=2, crops_per_frame=3, crop_side=64, max_pixels=1_200_000
)


def spot_window(*, photons: float = 200.0, side: int = 41, background: float = 4.0) -> Window:
    """Draw one Gaussian spot of sigma 1.2 px in the middle."""
    rng = np.random.default_rng(0)
    ss, fs = np.mgrid[:side, :side] - side // 2
    profile = np.exp(-(ss**2 + fs**2) / (2 * 1.2**2))
    spots = (photons * profile / profile.sum()).astype(np.float32)
    area = 4 * np.pi * 1.2**2
    return Window(
        image=(rng.poisson(spots + background) * 10.0).astype(np.float32),
        good=np.ones((side, side), dtype=bool),
        spots=spots,
        adu_per_photon=10.0,
        ss=np.array([side / 2 - 0.5]),
        fs=np.array([side / 2 - 0.5]),
        photons=np.array([photons]),
        noise=np.array([area * background]),
        area=np.array([area]),
    )


def test_a_peak_is_labelled_down_to_its_half_maximum_and_its_flanks_are_ignored() -> None:
    window = spot_window()
    label = label_window(window, TeachingParameters())
    share = window.spots / window.spots.max()
    np.testing.assert_array_equal(label == 1, share >= 0.5)
    np.testing.assert_array_equal(label == 255, (share >= FLANK) & (share < 0.5))


def test_a_disturbed_hot_pixel_stays_a_single_pixel() -> None:
    window = spot_window(photons=0.0, side=129)
    window.image[8, 8] = 1e6
    for seed in range(20):
        changed = disturb_window(window, np.random.default_rng(seed)).image
        around = np.delete(changed[7:10, 7:10].ravel(), 4)
        assert around.max() < 1e-2 * changed[8, 8]


def test_a_sharpened_experiment_puts_more_of_a_spot_into_its_brightest_pixel() -> None:
    experiment = draw_experiment(3, detector="demo", sample="lysozyme")
    sharp = sharpen(experiment, np.random.default_rng(0))

    def brightest_share(drawn: Experiment) -> float:
        frame = next(
            iter(simulate_frames(drawn, 1, 0, conditions=RunConditions(hit_fraction=1.0), workers=1))
        )
        table = frame.reflections
        strong = (table["snr"] > 5) & table["usable"]
        at = (table["panel"], np.rint(table["ss"]).astype(int), np.rint(table["fs"]).astype(int))
        return float(np.median((frame.spot_photons[at] / table["photons"])[strong]))

    assert brightest_share(sharp) > 1.3 * brightest_share(experiment)


@pytest.mark.parametrize(("photons", "values"), [(8.0, {0}), (15.0, {0, 255}), (60.0, {0, 1, 255})])
def test_weak_reflections_are_ignored_and_hopeless_ones_are_background(
    photons: float, values: set[int]
) -> None:
    assert set(np.unique(label_window(spot_window(photons=photons), TeachingParameters()))) == values


def test_bad_pixels_are_ignored_and_a_peak_on_them_too() -> None:
    window = spot_window()
    window.good[19:22, 20] = False
    label = label_window(window, TeachingParameters())
    assert (label[19:22, 20] == 255).all()
    assert not (label == 1).any()


def test_disturbances_keep_the_spot_and_lower_its_significance() -> None:
    window = spot_window()
    generator = np.random.default_rng(1)
    for changed in (add_diffuse(window, generator), add_halos(window, generator)):
        assert changed.snr[0] < window.snr[0]
        assert changed.image.mean() > window.image.mean()


def test_windows_hold_the_simulated_truth_at_the_right_place() -> None:
    frames = [frame for seed in range(6) for frame in draw_frames(seed, SMALL)]
    frame = max(frames, key=lambda f: sum(f.frame.reflections.get("snr", np.zeros(0)) > 20))
    table = frame.frame.reflections
    row = int(np.argmax(np.where(table["usable"], table["snr"], 0)))
    panel, ss, fs = (float(table[name][row]) for name in ("panel", "ss", "fs"))
    corner = (max(0, int(ss) - 20), max(0, int(fs) - 20))
    window = frame.window(int(panel), corner, 64)
    nearest = np.hypot(window.ss + corner[0] - ss, window.fs + corner[1] - fs).argmin()
    assert window.snr[nearest] == pytest.approx(table["snr"][row], rel=1e-3)
    at = round(window.ss[nearest]), round(window.fs[nearest])
    assert label_window(window, SMALL)[at] == 1
    around = window.image[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2]
    assert around.max() > np.median(window.image[window.good])


def test_stored_crops_repeat_themselves_and_are_reused(tmp_path: Path) -> None:
    first, second = (store_crops(tmp_path / name, SMALL) for name in "ab")
    assert len(first) == 12
    for index in (0, 5, 11):
        np.testing.assert_array_equal(first[index].image, second[index].image)
        np.testing.assert_array_equal(first[index].label, second[index].label)
    told: list[int] = []
    store_crops(tmp_path / "a", SMALL, progress=lambda done, total: told.append(done))
    assert told == []


def test_the_recipe_trains_validates_and_writes_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach_shipped, "VALIDATION_SEEDS", range(900_000_000, 900_000_003))
    training = TrainParameters(steps=4, batch_size=2, validate_every=4, blocks_per_crop=4)
    recipe = replace(ShippedRecipe(), teaching=SMALL, training=training)
    assert all(panel.image.shape == panel.label.shape for panel in validation_panels(SMALL))
    folder = train_shipped(tmp_path / "work", tmp_path / "general", recipe=recipe)
    loaded = read_checkpoint(folder)
    assert loaded.card.step == 4
    assert loaded.card.training_manifest == SMALL.digest()
    assert loaded.card.threshold == recipe.threshold
    assert loaded.card.scores["threshold"] in recipe.validation.thresholds
