"""The finders side by side: what is read off a curve, what evidence is worth, and one experiment from end to end."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from peaknet_pipeline.bench import finders
from peaknet_pipeline.bench.evidence import Places, nats_per_hit, reliability
from peaknet_pipeline.bench.finder_curves import BANDS, FALSE_PEAKS, Point, at_false_peaks
from peaknet_pipeline.bench.finder_sets import noise_area, significance, width_of
from peaknet_pipeline.simulate.spots import PIXEL_VARIANCE, expected_snr


def test_a_curve_is_read_between_two_settings_and_never_beyond_the_strictest():
    band = next(iter(BANDS))
    curve = [
        Point(false, dict.fromkeys(BANDS, found), 0.0, 0) for false, found in ((100, 40), (20, 30), (4, 10))
    ]
    assert at_false_peaks([curve], 10, 2.0)[band] == 30
    assert at_false_peaks([curve], 10, 1.2)[band] == pytest.approx(20)
    assert at_false_peaks([curve], 10, 0.3)[band] == 0
    assert at_false_peaks([curve], 10, 50.0)[band] == 40


def test_the_best_of_several_curves_counts():
    curves = [[Point(0, dict.fromkeys(BANDS, found), 0.0, 0)] for found in (3, 7, 5)]
    assert set(at_false_peaks(curves, 1, 1.0).values()) == {7, 0.0}


def test_significance_is_that_of_a_gaussian_filter_for_many_photons_and_area_comes_back_from_the_snr():
    rng = np.random.default_rng(3)
    area, level = rng.uniform(2, 60, 200), rng.uniform(50, 500, 200)
    photons = 5.0 * np.sqrt(area * level)
    truth = pd.DataFrame(
        {"photons": photons, "background": level, "snr": expected_snr(photons, area, level, 0.0)}
    )
    np.testing.assert_allclose(noise_area(truth, 0.0), area, rtol=1e-6)
    z = significance(truth, area, 0.0)
    # Next term of the expansion in n/B: z = (n/√B)(1 − n/(6B)).
    expected = 5.0 * (1 - photons / (area * level) / 6)
    np.testing.assert_allclose(z, expected, rtol=0.02)
    assert width_of(np.full(3, 4 * np.pi * (1.3**2 + PIXEL_VARIANCE))) == pytest.approx(1.3)


def test_nats_are_the_divergence_of_two_normal_distributions_and_nothing_without_evidence():
    rng = np.random.default_rng(5)
    frame = np.repeat(np.arange(40), 1100)
    true = np.tile(np.arange(1100) < 100, 40)
    places = Places(frame, (frame, frame, frame), true)
    shift = 1.5
    read = rng.standard_normal(len(frame)) + shift * true
    # D(N(μ, 1) ‖ N(0, 1)) = μ²/2 for each of 100 spots; bins lose a little of it.
    assert nats_per_hit(read, places) == pytest.approx(100 * shift**2 / 2, rel=0.1)
    assert nats_per_hit(np.exp(read), places) == pytest.approx(nats_per_hit(read, places))
    assert abs(nats_per_hit(rng.standard_normal(len(frame)), places)) < 1.0


def test_probabilities_that_are_what_they_say_have_a_ratio_of_one():
    rng = np.random.default_rng(7)
    logits = rng.uniform(-9, 6, 400_000)
    true = rng.random(len(logits)) < expit(logits)
    rows = reliability(logits, true)
    assert len(rows) >= 6
    for row in rows:
        assert abs(row["true"] - row["predicted"]) < 4 * np.sqrt(row["predicted"])
    overconfident = reliability(logits + 2.3, true)
    assert all(row["ratio"] < 0.4 for row in overconfident if row["odds"] < -1)


def test_one_experiment_from_end_to_end(tmp_path):
    figures = finders.run(experiments=1, frames=4, seeds="validation", out=str(tmp_path))
    assert (tmp_path / "finders.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} == {"finders.json", "finders.png"}
    (only,) = figures["sets"]
    assert {"all", "integrating"} < set(only["classes"])
    for finder in finders.FINDERS:
        curve = [figures["classes"]["all"][finder][f"{rate:g}"] for rate in FALSE_PEAKS]
        for band in BANDS:
            found = [at[band][0] for at in curve]
            assert min(found) >= 0
            assert max(found) <= curve[0][band][1]
        totals = [sum(at[band][0] for band in BANDS) for at in curve]
        assert totals == sorted(totals)
        assert totals[-1] > 0
    assert figures["nats_per_hit"]["all"]["matched_filter"] > 0
