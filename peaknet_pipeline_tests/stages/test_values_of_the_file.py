"""Camera length, photon energy and gain that the geometry leaves to the run's file."""

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import FITS, INDEX, PEAKS, REFLECTIONS
from peaknet_pipeline.stages.classical_peaks import classical_peaks
from peaknet_pipeline.stages.peak_labels import gains, peak_labels
from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.stages.run_index import classical_index
from peaknet_pipeline.stages.run_statistics import run_statistics
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import fits_path, index_path, peaks_path, reflections_path
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.tables import read_table
from peaknet_pipeline_tests.stages.lcls_files import NUMBERS, PATHS, write_lcls_experiment

KEY = "lcls-r0001"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The chain up to labels, once with the values at paths of the file and once with the same values as numbers."""
    stores = {}
    for name, values in (("paths", PATHS), ("numbers", NUMBERS)):
        store = Store(tmp_path_factory.mktemp(name))
        write_lcls_experiment(store.raw_root / "lcls", values=values, n_frames=4)
        for stage in (raw_run, run_statistics, classical_peaks, classical_index, peak_labels):
            made = stage(store, KEY)
            assert made.output.is_file(), stage.__name__
        stores[name] = store
    return stores


def test_values_at_paths_of_the_file_give_the_tables_that_the_same_numbers_give(labelled):
    for path, schema in (
        (lambda store: peaks_path(store, KEY, "classical"), PEAKS),
        (lambda store: index_path(store, KEY, "classical"), INDEX),
        (lambda store: reflections_path(store, KEY, "classical"), REFLECTIONS),
        (lambda store: fits_path(store, KEY), FITS),
    ):
        tables = {name: read_table(path(store), schema) for name, store in labelled.items()}
        assert len(tables["paths"]) > 20 or schema is INDEX
        pd.testing.assert_frame_equal(tables["paths"], tables["numbers"], rtol=1e-5)


def test_gain_per_ev_becomes_adu_per_photon_by_the_runs_energy(labelled):
    with open_raw(read_context(labelled["paths"], KEY)) as run:
        np.testing.assert_allclose(gains(geometry_of(run)), np.full(8, 20.0))
