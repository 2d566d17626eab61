"""Real stills through the same assets: ingestion to metrics, orientations against independently refined ones."""

import json
import shutil

import numpy as np
import pytest

from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.schemas import INDEX, SCORES
from peaknet_pipeline.tables import read_table
from peaknet_pipeline_tests.orchestration.conftest import failure_text, open_world

KEY = "snase-r0001"
ASSETS = [
    "raw_run",
    "run_statistics",
    "classical_peaks",
    "classical_index",
    "peaknet_peaks",
    "peaknet_index",
    "run_metrics",
]
SETTINGS = """\
finder: {threshold: 300, min_snr: 6, min_pix: 2, max_pix: 100, local_bg_radius: 3}
metrics: {min_peaks: 15}
"""


@pytest.fixture(scope="module")
def snase(realdata, tmp_path_factory):
    """The nuclease stills as a raw run, with the network that comes with the package as the first champion."""
    root = tmp_path_factory.mktemp("snase")
    folder = root / "raw" / "snase"
    folder.mkdir(parents=True)
    for source, name in (
        ("stills.h5", "r0001.h5"),
        ("stills.geom", "stills.geom"),
        ("snase.cell", "snase.cell"),
    ):
        shutil.copy(realdata / "snase" / source, folder / name)
    (folder / "experiment.yaml").write_text(SETTINGS)
    world = open_world(root)
    register_runs(world.instance, [KEY])
    result = world.materialize(["champion"])
    assert result.success, failure_text(result)
    result = world.materialize(ASSETS, KEY)
    assert result.success, failure_text(result)
    return world


def misorientations(world, realdata, finder):
    """Return degrees per frame between the best lattice and the refined one, whose y axis points the other way."""
    refined = json.loads((realdata / "snase" / "refined_orientation.json").read_text())
    lattices = read_table(world.store.table(f"{finder}_index", KEY), INDEX)
    cell = read_cell(realdata / "snase" / "snase.cell")
    flip = np.diag([1.0, -1.0, 1.0])
    found = {}
    for frame, axes in zip(lattices["frame"], table_axes(lattices), strict=True):
        truth = flip @ np.array(refined[int(frame)]["A_recip_invA"])
        angle = misorientation_deg(axes, truth, cell)
        found[int(frame)] = min(angle, found.get(int(frame), np.inf))
    return found


def test_the_classical_path_indexes_the_nuclease_stills_as_refined(snase, realdata):
    angles = misorientations(snase, realdata, "classical")
    assert len(angles) >= 9
    assert max(angles.values()) < 0.5


def test_both_finders_are_scored_on_real_frames_without_inventing_truth(snase):
    scores = read_table(snase.store.table("run_metrics", KEY), SCORES).set_index("finder")
    assert (scores["frames"] == 10).all()
    assert scores["precision"].isna().all()
    assert scores.loc["classical", "indexed"] >= 9
    assert scores.loc["classical", "false_index_rate"] == 0
    assert scores.loc["peaknet", "model"] == "general-v0001"
