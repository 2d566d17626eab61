"""The report's own arithmetic: rings, residuals, the choice of frames; and a report of runs that were never scored."""

import numpy as np
import pytest

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.geometry.assemble import image_extent
from peaknet_pipeline.geometry.maps import resolution_map
from peaknet_pipeline.schemas import PEAKS, REFLECTIONS
from peaknet_pipeline.stages.report_figures import _examples, panel_residuals, resolution_rings
from peaknet_pipeline.stages.reporting import report_command
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.tables import make_table, write_json
from peaknet_pipeline_tests.runs.files import slab_geometry


def test_rings_pass_through_the_pixels_of_their_resolution():
    geometry = slab_geometry()
    rings = resolution_rings(geometry, 9500.0, (-4000.0, 4000.0, -4000.0, 4000.0))
    assert 2 <= len(rings) <= 4
    panel = geometry.panels[0]
    inv_d = resolution_map(geometry, 9500.0)[0]
    x = panel.corner_x + 0.5 * (panel.fs_vec[0] + panel.ss_vec[0])
    y = panel.corner_y + 0.5 * (panel.fs_vec[1] + panel.ss_vec[1])
    for radius, text in rings:
        sine = np.sin(0.5 * np.arctan(radius * panel.pixel_size_m / panel.clen_m))
        assert 2 * sine / (12398.4198 / 9500) == pytest.approx(1 / float(text.split()[0]), rel=1e-6)
    corner = np.hypot(x, y) * panel.pixel_size_m / panel.clen_m
    assert inv_d[0, 0] == pytest.approx(2 * np.sin(0.5 * np.arctan(corner)) * 9500 / 12398.4198, rel=1e-3)
    assert resolution_rings(geometry, float("nan"), image_extent(geometry)) == []


def test_a_shifted_panel_shows_in_its_residuals_only():
    rng = np.random.default_rng(4)
    n = 200
    place = {"frame": np.arange(n) // 10, "panel": np.arange(n) % 2}
    fs, ss = np.linspace(10, 180, n), rng.uniform(10, 150, n)
    shift = np.where(place["panel"] == 1, 1.5, 0.0)
    zero = {name: np.zeros(n) for name in ("h", "k", "l", "lattice", "inv_d", "excitation_error")}
    reflections = make_table(REFLECTIONS, {**place, **zero, "fs": fs, "ss": ss})
    ones = {
        name: np.ones(n) for name in ("intensity", "max_intensity", "background", "sigma", "snr", "n_pixels")
    }
    peaks = make_table(PEAKS, {**place, **ones, "fs": fs + shift, "ss": ss - 0.25})
    medians = panel_residuals(peaks, reflections).groupby("panel").median()
    assert medians["d_fs"].tolist() == pytest.approx([0.0, 1.5], abs=1e-4)
    assert medians["d_ss"].tolist() == pytest.approx([-0.25, -0.25], abs=1e-4)


def test_examples_are_a_typical_frame_the_richest_and_where_the_finders_differ():
    counts = {"peaknet": np.array([0, 20, 30, 90, 2]), "classical": np.array([0, 20, 28, 85, 60])}
    told = dict(_examples(counts))
    assert told[3] == "The frame with the most peaks"
    assert told[4] == "Where the finders differ most"
    assert len(told) == 3
    assert dict(_examples({"peaknet": np.zeros(3, int), "classical": np.zeros(3, int)})) == {}


def test_runs_that_were_never_scored_have_a_report_too(tmp_path):
    store = Store(tmp_path)
    (store.raw_root / "lyso").mkdir(parents=True)
    (store.raw_root / "lyso" / "r0001.h5").write_bytes(b"frames")
    found = [{"cause": "ice rings", "told": "31 % of the peaks at 3.67 Å", "remedy": "Leave them out."}]
    write_json(store.file("diagnosis", "lyso-r0001", ".json"), {"run": "lyso-r0001", "findings": found})
    page = report_command(store, "lyso").read_text(encoding="utf-8")
    assert "lyso-r0001" in page
    assert "31 % of the peaks at 3.67 Å" in page
    assert "1 of 1 runs were diagnosed; nothing is wrong with 0 of them" in page
    assert "registered" in page
    assert "0 of 1" in page
    with pytest.raises(PeaknetError, match="expected one of lyso"):
        report_command(store, "thaumatin")
