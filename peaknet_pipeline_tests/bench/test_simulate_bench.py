"""The simulator's benchmark, and simulated frames beside real ones."""

from dataclasses import replace

import numpy as np
import pytest

from peaknet_pipeline.bench import realism
from peaknet_pipeline.bench.realism_measure import measure, peak_widths, shell_statistics
from peaknet_pipeline.bench.realism_plot import draw_comparison, find_ranges, summarise
from peaknet_pipeline.bench.realism_sources import (
    INDEPENDENT,
    REAL,
    finder_for,
    lysozyme_twin,
    open_source,
    simulated_set,
    thaumatin_twin,
)
from peaknet_pipeline.bench.simulate import run
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.tables import make_table

FLOOR = Peakfinder8Params(threshold=5.0)


def test_the_benchmark_reports_rates_and_its_target():
    figures = run(detectors="demo", n_frames=4, repeats=1)
    demo = figures["detectors"]["demo"]
    assert demo["mpix"] == pytest.approx(0.36, abs=0.001)
    assert demo["mpix_per_second_file"] == pytest.approx(demo["frames_per_second_file"] * 0.3604, rel=0.01)
    assert figures["target_met"] == (demo["mpix_per_second_file"] >= 5)


def test_the_comparison_asks_for_its_real_frames(tmp_path):
    with pytest.raises(ParameterError, match="no folder of real frames"):
        realism.run(realdata=str(tmp_path / "absent"))


def test_shell_statistics_recover_a_known_background():
    generator = np.random.default_rng(0)
    shells = np.repeat([0, 1], 20000).reshape(1, 2, 20000).repeat(10, axis=1)
    level = np.where(shells == 0, 3.0, 11.0)
    photons = generator.poisson(level).astype(np.float32)
    photons[0, ::3, ::97] += 500
    bad = np.zeros(photons.shape, dtype=bool)
    bad[0, :, 5000:5100] = True
    photons[bad] = np.nan
    mean, variance = shell_statistics(photons, bad, shells)
    np.testing.assert_allclose(mean, [3, 11], rtol=0.02)
    np.testing.assert_allclose(variance, [3, 11], rtol=0.04)


@pytest.mark.parametrize("sigma", [0.8, 1.2])
def test_peak_widths_are_the_widths_of_gaussian_spots(sigma):
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:64, :64]
    image = 4000 * np.exp(-((y - 30.2) ** 2 + (x - 31.4) ** 2) / 2 / sigma**2) + generator.poisson(
        2.0, (64, 64)
    )
    columns = {c.name: [1.0] for c in PEAKS.columns} | {
        "panel": [0],
        "fs": [31.4],
        "ss": [30.2],
        "snr": [50.0],
    }
    table = make_table(PEAKS, columns | {"n_pixels": [9]})
    widths = peak_widths(image[None].astype(np.float32), np.zeros((1, 64, 64), bool), table)
    assert widths == pytest.approx([sigma], rel=0.07)


def test_the_twin_of_the_independent_simulation_resembles_it(realdata):
    source = replace(INDEPENDENT[0], frames=tuple(range(5)))
    independent = summarise(measure(open_source(source, realdata), FLOOR))
    twin = summarise(measure(simulated_set(lysozyme_twin(realdata), 5, seed=2), FLOOR))
    for quantity, tolerance in (("background_6A", 1.3), ("background_3A3", 1.3), ("width_px", 1.2),
                                ("intensity_50", 1.5), ("n_peaks", 1.6)):  # fmt: skip
        assert 1 / tolerance < twin[quantity] / independent[quantity] < tolerance, quantity


def test_the_twin_of_real_thaumatin_resembles_it(realdata):
    real = summarise(measure(open_source(replace(REAL[0], frames=(0, 6)), realdata), FLOOR))
    twin = summarise(measure(simulated_set(thaumatin_twin(realdata), 2, seed=2), FLOOR))
    for quantity, tolerance in (("background_6A", 1.4), ("background_3A3", 1.4), ("width_px", 1.2),
                                ("intensity_50", 2.0), ("n_peaks", 2.0)):  # fmt: skip
        assert 1 / tolerance < twin[quantity] / real[quantity] < tolerance, quantity


def test_the_comparison_is_drawn_and_ranges_name_what_is_outside(tmp_path):
    demo, other = demo_experiment(), draw_experiment(104, detector="demo")
    named = [measure(simulated_set(demo, 1, seed=1, name=f"source {n}"), finder_for(demo)) for n in range(7)]
    draws = [measure(simulated_set(e, 1, seed=3), finder_for(e)) for e in (demo, other)]
    draw_comparison(named, draws, tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    far = replace(named[0], intensities=named[0].intensities * 1e6)
    ranges = find_ranges([far], draws)
    assert ranges["intensity_50"]["outside"] == ["source 0"]
    assert ranges["background_6A"]["low"] <= ranges["background_6A"]["high"]
