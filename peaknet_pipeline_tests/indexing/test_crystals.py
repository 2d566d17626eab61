"""Integrated intensities against the simulator's truth, and what a crystal's reflections tell of it."""

from dataclasses import replace

import numpy as np
import pytest

from peaknet_pipeline.geometry.resolve import gains
from peaknet_pipeline.indexing.crystals import describe_crystals, resolution_limit
from peaknet_pipeline.indexing.integrate import integrate_reflections
from peaknet_pipeline.indexing.predict import LatticeExtent
from peaknet_pipeline.schemas import INDEX, REFLECTIONS
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.frames import make_simulator, simulate_frames
from peaknet_pipeline.tables import empty_table, make_table


@pytest.fixture(scope="module")
def integrated():
    """Pulls of usable reflections below 200 photons, without and with their own noise, and the background's error, photons.

    A pull is (measured - share * true) / sigma; the share of a run's spots that lies within the disc is a scale, not noise.
    Two seeds whose spots fit the disc, streak and shadow switched off; on wider spots pulls are up to 1.5 (benchmark log).
    """
    parts = [_integrate(seed) for seed in (31, 36)]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _integrate(seed):
    experiment = draw_experiment(seed, detector="demo", sample="lysozyme")
    shots = replace(experiment.shots, hit_fraction=1.0, multi_probability=0.0)
    level = replace(experiment.background, streak_photons=0.0, shadow_arm_px=0.0, shadow_radius_px=0.0)
    experiment = replace(experiment, shots=shots, background=level)
    bad = make_simulator(experiment).pixels.truly_bad
    gain = experiment.response.adu_per_photon
    assert gains(experiment.geometry) == pytest.approx(gain)
    parts = []
    for frame in simulate_frames(experiment, 6, 7, workers=1):
        true = frame.reflections
        rows = true["usable"] & (true["photons"] < 200.0)
        columns = {
            name: true[name][rows] for name in ("h", "k", "l", "panel", "fs", "ss", "inv_d", "lattice")
        }
        zero = np.zeros(rows.sum())
        table = make_table(REFLECTIONS, {**columns, "frame": zero, "excitation_error": zero})
        about = {"bad_pixels": bad, "adu_per_photon": gain}
        done = integrate_reflections(frame.data[None], table, **about)
        without = integrate_reflections(frame.data[None], table, bad_pixels=bad)
        columns = (done["intensity"], done["sigma"], without["sigma"], done["background"])
        parts.append(
            [c.to_numpy() / gain for c in columns] + [true[n][rows] for n in ("photons", "background")]
        )
    value, sigma, too_small, level, photons, true_level = (
        np.concatenate(c) for c in zip(*parts, strict=True)
    )
    good = np.isfinite(value)
    strong = good & (photons > 30.0)
    share = value[strong].sum() / photons[strong].sum()
    away = (value - share * photons)[good]
    return away / sigma[good], away / too_small[good], (level - true_level)[good]


def test_sigma_is_the_scatter_about_the_truth(integrated):
    pulls, without_counting = integrated[:2]

    assert len(pulls) > 500
    assert pulls.std() == pytest.approx(1.0, abs=0.08)
    assert abs(pulls.mean()) < 0.1
    assert without_counting.std() > 1.5


def test_background_is_the_true_one(integrated):
    assert abs(np.median(integrated[2])) < 0.05


def test_resolution_limit_is_where_the_signal_ends():
    generator = np.random.default_rng(1)
    inv_d = np.sqrt(generator.uniform(0.0, 0.64, 2000))
    snr = generator.normal(size=2000) + 8.0 * (inv_d < 0.5)

    assert resolution_limit(inv_d, snr) == pytest.approx(0.5, abs=0.02)
    assert np.isnan(resolution_limit(inv_d, generator.normal(size=2000)))


def test_crystals_have_a_row_each_with_or_without_reflections():
    zero = {name: [0.0, 0.0] for name in INDEX.column_names()}
    lattices = make_table(INDEX, zero | {"lattice": [0, 1]})
    n = 4
    columns = dict.fromkeys(REFLECTIONS.column_names(), np.zeros(n)) | {
        "inv_d": [0.1, 0.25, 0.45, 0.7],
        "intensity": [10.0, 8.0, 3.0, np.nan],
        "sigma": [2.0, 2.0, 1.0, np.nan],
    }
    extents = [LatticeExtent(0.001, 0.6, 0.4), LatticeExtent(0.002, 0.6, 0.5)]
    table = describe_crystals(lattices, make_table(REFLECTIONS, columns), extents)

    assert table["n_reflections"].tolist() == [3, 0]
    assert table["peak_inv_d"].tolist() == pytest.approx([0.4, 0.5])
    assert table["mean_snr"][0] == pytest.approx(4.0)
    assert table["snr_beyond_5"][0] == pytest.approx(5.0)
    assert table["snr_2_5_to_2"][0] == pytest.approx(3.0)
    assert table.loc[1, ["mean_snr", "snr_below_2", "resolution_limit"]].isna().all()
    assert len(describe_crystals(empty_table(INDEX), empty_table(REFLECTIONS), [])) == 0
