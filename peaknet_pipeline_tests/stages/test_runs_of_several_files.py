"""Runs that lie in several files go through the first stages as one, and are stale when any of the files changes."""

import json

import h5py
import numpy as np
import pytest

from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.stages.run_statistics import run_statistics
from peaknet_pipeline.stages.run_table import run_table
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import manifest_path
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline_tests.runs.files import CXI_DATA, slab_geometry, write_slab_run

KEY = "lyso-r0007"


@pytest.fixture
def store(tmp_path):
    """An experiment with the small slab geometry."""
    folder = tmp_path / "raw" / "lyso"
    folder.mkdir(parents=True)
    (folder / "a.geom").write_text(slab_geometry().text)
    return Store(tmp_path)


def row_of(store):
    return run_table(store).set_index("run").loc[KEY]


def test_parts_of_a_run_are_one_run_to_every_stage_until_one_more_comes(store):
    folder = store.raw_root / "lyso"
    frames = np.concatenate([write_slab_run(folder / f"run7-{k}.h5", n) for k, n in ((0, 4), (1, 3))])
    assert raw_run(store, KEY).figures["frames"] == 7
    assert run_statistics(store, KEY).figures["frames"] == 7
    told = json.loads(manifest_path(store, KEY).read_text())["files"]
    assert [name.rpartition("/")[2] for name in told] == ["run7-0.h5", "run7-1.h5"]
    with open_raw(read_context(store, KEY)) as run:
        np.testing.assert_array_equal(run.read(2, 6), frames[2:6])
        assert run.locate(5) == (folder / "run7-1.h5", 1)
    assert row_of(store)["status"] == "partial"
    write_slab_run(folder / "run7-2.h5", 2)
    assert row_of(store)["error"] == "run7-2.h5 came since; raw_run, run_statistics must be made again"
    assert raw_run(store, KEY).figures["frames"] == 9


def test_a_run_is_stale_when_a_file_that_it_links_to_is_replaced(store):
    folder = store.raw_root / "lyso"
    write_slab_run(folder / "lyso_7_data_000001.h5", 4)
    with h5py.File(folder / "lyso_7_master.h5", "w") as master:
        master[CXI_DATA] = h5py.ExternalLink("lyso_7_data_000001.h5", CXI_DATA)
    assert raw_run(store, KEY).figures["frames"] == 4
    assert row_of(store)["status"] == "partial"
    write_slab_run(folder / "lyso_7_data_000001.h5", 5)
    row = row_of(store)
    assert (row["status"], row["error"].split(";")[0]) == (
        "stale",
        "lyso_7_data_000001.h5 was replaced or changed since",
    )
