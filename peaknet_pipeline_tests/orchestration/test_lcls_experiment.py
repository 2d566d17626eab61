"""An experiment as LCLS leaves it, through Dagster: from the raw run to rates, and the commands on what the chain wrote."""

import numpy as np
import pytest

from peaknet_pipeline.orchestration.jobs import INFER, INGEST, SUMMARY
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.schemas import FITS, INDEX, PEAKS, SCORES
from peaknet_pipeline.simulate.demo import DEMO_DISTANCE_M
from peaknet_pipeline.simulate.detectors import ENERGY_PATH
from peaknet_pipeline.stages.peak_labels import gains
from peaknet_pipeline.stages.run_table import run_table
from peaknet_pipeline.steps.peak_record import read_recorded_peaks
from peaknet_pipeline.store.paths import fits_path, index_path, peaks_path
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.tables import read_table
from peaknet_pipeline_tests.orchestration.conftest import failure_text, open_world
from peaknet_pipeline_tests.stages.lcls_files import change_values, write_lcls_experiment

KEY = "lcls-r0001"


def test_camera_length_energy_and_gain_of_the_file_a_shot_without_energy_and_a_linked_file(tmp_path):
    """Eight panels, ``clen`` and energy at HDF5 paths, ``adu_per_eV``; the run file is a symbolic link."""
    world = open_world(tmp_path / "data")
    folder, elsewhere = world.store.raw_root / "lcls", tmp_path / "facility"
    write_lcls_experiment(folder, n_frames=6)
    change_values(folder / "r0001.h5", ENERGY_PATH, {0: float("nan")})
    elsewhere.mkdir()
    (folder / "r0001.h5").rename(elsewhere / "r0001.h5")
    (folder / "r0001.h5").symlink_to(elsewhere / "r0001.h5")
    register_runs(world.instance, [KEY])
    for assets, partition in ((INGEST, KEY), (("champion",), None), (INFER, KEY), (SUMMARY, None)):
        result = world.materialize(assets, partition)
        assert result.success, failure_text(result)
    with open_raw(read_context(world.store, KEY)) as run:
        np.testing.assert_allclose(gains(run.geometry), np.full(8, 20.0))
    for finder in ("classical", "peaknet"):
        peaks = read_table(peaks_path(world.store, KEY, finder), PEAKS)
        assert (peaks["frame"] == 0).sum() > 20
        assert set(peaks.loc[peaks["inv_d"].isna(), "frame"]) == {0}
        lattices = read_table(index_path(world.store, KEY, finder), INDEX)
        assert 0 not in set(lattices["frame"])
        assert lattices["frame"].nunique() >= 3
        recorded = read_recorded_peaks(peaks_path(world.store, KEY, finder), folder / "lcls.geom")
        assert recorded.geometry.panels[0].clen_m == pytest.approx(DEMO_DISTANCE_M)
        assert recorded.n_frames == 6
    assert len(read_table(fits_path(world.store, KEY), FITS)) > 50
    scores = read_table(world.store.table("run_metrics", KEY), SCORES)
    assert (scores["indexed"] >= 3).all()
    assert run_table(world.store)["frames_without_resolution"].tolist() == [1]
