"""What experiment.yaml masks reaches the finders; the droplet finder is a choice; the commands say the same."""

import json

import numpy as np
import pytest

from peaknet_pipeline.cli import main
from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.geometry.maps import resolution_map
from peaknet_pipeline.runs.masks import read_layers, read_mask, write_mask
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.stages.classical_peaks import classical_peaks
from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.stages.run_statistics import run_statistics
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.tables import read_table

KEY = "small-r0001"
FINDER = "finder: {threshold: 70, max_pix: 60, local_bg_radius: 4}\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """One simulated run, its manifest made."""
    root = tmp_path_factory.mktemp("masking")
    folder = root / "raw" / "small"
    experiment = demo_experiment(5, name="small")
    write_experiment_files(experiment, folder)
    simulate_run(experiment, folder / "r0001.h5", n_frames=10, seed=31, run_number=1)
    raw_run(Store(root), KEY)
    return root


def made(root, settings):
    """Statistics and classical peaks of the run with these settings."""
    (root / "raw" / "small" / "experiment.yaml").write_text(settings)
    statistics = run_statistics(Store(root), KEY)
    peaks = read_table(classical_peaks(Store(root), KEY).output, PEAKS)
    return statistics, peaks


def test_what_the_experiment_masks_holds_no_peaks_and_is_accounted_for(raw):
    plain, every = made(raw, FINDER)
    with open_raw(read_context(Store(raw), KEY)) as run:
        drawn = np.zeros(run.stack_shape, bool)
    drawn[1] = True
    write_mask(drawn, raw / "raw" / "small" / "drawn.h5")
    mask = "mask: {mask_files: [drawn.h5], edge_width: 3, exclude_ice: true}\n"
    statistics, peaks = made(raw, FINDER + mask)
    assert 0.99 * drawn[1].size < statistics.figures["new_from_drawn.h5"] <= drawn[1].size
    assert statistics.figures["new_from_edges"] > 1000
    assert statistics.figures["new_from_rings"] > 1000
    assert statistics.data_version != plain.data_version
    layers = read_layers(statistics.output)
    assert np.array_equal(layers["drawn.h5"], drawn)
    assert {"virtual_powder", "bad_pixel_mask"} <= set(statistics.plots)
    place = peaks[["panel", "ss", "fs"]].round().astype(int).to_numpy().T
    assert not read_mask(statistics.output)[0][tuple(place)].any()
    assert (every["panel"] == 1).any()
    assert 20 < len(peaks) < len(every)


def test_rings_can_be_taken_from_the_peaks_alone(raw):
    (raw / "raw" / "small" / "experiment.yaml").write_text(FINDER)
    run_statistics(Store(raw), KEY)
    every = read_table(classical_peaks(Store(raw), KEY).output, PEAKS)
    ring = float(1 / np.median(every["inv_d"]))
    statistics, peaks = made(raw, FINDER + f"mask: {{rings_angstrom: [{ring}], ring_mode: peaks}}\n")
    on_ring = np.abs(every["inv_d"] - 1 / ring) < 0.004
    assert on_ring.any()
    assert len(peaks) == (~on_ring).sum()
    assert "rings" not in read_layers(statistics.output)
    with open_raw(read_context(Store(raw), KEY)) as run:
        geometry = run.geometry
    assert resolution_map(geometry, 9500.0).max() > 1 / ring


def test_the_droplet_finder_is_a_choice(raw):
    settings = "classical_finder: droplet\ndroplet: {thr_low: 30, thr_high: 80, son_min: 5}\n"
    _, other = made(raw, FINDER)
    (raw / "raw" / "small" / "experiment.yaml").write_text(settings)
    peaks = read_table(classical_peaks(Store(raw), KEY).output, PEAKS)
    assert len(peaks) > 0.3 * len(other)
    with pytest.raises(ParameterError, match=r"parameters that droplet doesn't have.*threshold"):
        classical_peaks(Store(raw), KEY, overrides={"threshold": 3.0, "rank": None})
    (raw / "raw" / "small" / "experiment.yaml").write_text("classical_finder: magic\n")
    with pytest.raises(ParameterError, match="unknown classical_finder"):
        classical_peaks(Store(raw), KEY)


@pytest.mark.parametrize(
    ("mask", "error", "match"),
    [
        ("mask: {mask_files: [nowhere.h5]}", RunError, "no such mask or dark run"),
        ("mask: {dark_files: [../../../secret.h5]}", ParameterError, "leads out of its folder"),
        ("mask: {ring_mode: both}", ParameterError, "not an allowed choice"),
        ("mask: {shadows: true}", ParameterError, "unknown parameter 'shadows'"),
    ],
)
def test_a_mistake_in_the_section_says_what_is_wrong(raw, mask, error, match):
    (raw / "raw" / "small" / "experiment.yaml").write_text(mask)
    with pytest.raises(error, match=match):
        run_statistics(Store(raw), KEY)


def test_the_command_makes_the_mask_that_find_takes(raw, tmp_path, capsys):
    folder = raw / "raw" / "small"
    geometry = str(next(folder.glob("*.geom")))
    run, out = str(folder / "r0001.h5"), tmp_path / "mask.h5"
    options = [
        "--geometry",
        geometry,
        "--set",
        "edge_width=2",
        "--plot",
        str(tmp_path / "mask.png"),
        "--json",
    ]
    main(["mask", run, "--out", str(out), *options])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["bad_pixels"] == read_mask(out)[0].sum()
    layers = read_layers(out)
    earlier = np.logical_or.reduce([layer for name, layer in layers.items() if name != "edges"])
    assert figures["new_from_edges"] == (layers["edges"] & ~earlier).sum() > 10000
    assert (tmp_path / "mask.png").read_bytes().startswith(b"\x89PNG")
    for finder, settings in (("peakfinder8", "threshold=70"), ("droplet", "thr_high=80")):
        table = tmp_path / f"{finder}.parquet"
        main(["find", run, "--geometry", geometry, "--finder", finder, "--mask", str(out), "--exclude-ice",
              "--set", settings, "--out", str(table), "--json"])  # fmt: skip
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["bad_pixels"] == figures["bad_pixels"]
        peaks = read_table(table, PEAKS)
        place = peaks[["panel", "ss", "fs"]].round().astype(int).to_numpy().T
        assert len(peaks) > 10
        if finder == "peakfinder8":
            assert not read_mask(out)[0][tuple(place)].any()
