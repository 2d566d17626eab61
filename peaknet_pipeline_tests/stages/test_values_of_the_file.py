"""Camera length, photon energy and gain that the geometry leaves to the run's file."""

import shutil

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.distance import camera_lengths_m
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.stream_read import read_stream
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import FITS, INDEX, PEAKS, REFLECTIONS
from peaknet_pipeline.simulate.demo import DEMO_DISTANCE_M, DEMO_ENERGY_EV
from peaknet_pipeline.simulate.detectors import ENCODER_PATH, ENERGY_PATH
from peaknet_pipeline.stages.classical_peaks import classical_peaks
from peaknet_pipeline.stages.peak_labels import gains, peak_labels
from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.stages.run_index import classical_index
from peaknet_pipeline.stages.run_statistics import run_statistics
from peaknet_pipeline.stages.run_table import format_runs, run_table
from peaknet_pipeline.steps.cell_of_run import cell_command
from peaknet_pipeline.steps.find_in_file import find_command
from peaknet_pipeline.steps.geometry_file import write_run_geometry
from peaknet_pipeline.steps.index_file import index_command
from peaknet_pipeline.steps.peak_record import read_recorded_peaks
from peaknet_pipeline.steps.refine_run_geometry import refine_geometry_command
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import fits_path, index_path, peaks_path, reflections_path
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline.tables import read_table, read_table_metadata, write_table
from peaknet_pipeline_tests.stages.lcls_files import (
    COFFSET_M,
    ENCODER_MM,
    NUMBERS,
    PATHS,
    change_values,
    move_detector,
    write_lcls_experiment,
)

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


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Peaks of ``peaknet find`` in a run whose detector moved by 4 mm after its third frame, and where its files lie."""
    folder = tmp_path_factory.mktemp("found")
    experiment = write_lcls_experiment(folder, n_frames=6)
    move_detector(folder, experiment, by_mm=4.0, frames=[3, 4, 5])
    find(folder / "r0001.h5", folder / "lcls.geom", folder / "peaks.parquet")
    return folder


def find(run, geometry, out):
    """Find peaks as the command line does."""
    find_command(
        run,
        geometry=geometry,
        finder="peakfinder8",
        model=None,
        settings=["threshold=70", "max_pix=60", "local_bg_radius=4"],
        masks=[],
        out=out,
        cxi=None,
    )


def index(folder, geometry, out="lattices.parquet", **options):
    """Index as the command line does; return the lattices."""
    told = index_command(
        folder / "peaks.parquet",
        geometry=geometry,
        cell=folder / "lcls.cell",
        engine="lattice",
        settings=[],
        out=folder / out,
        **{"stream": None, **options},
    )
    return read_table(folder / out, INDEX), told


def test_lattices_are_found_from_the_table_alone_at_each_frames_distance(found, tmp_path):
    folder = shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    whole, told = index(folder, folder / "lcls.geom")
    assert told["frames"] == 6
    assert told["indexed"] >= 5
    (folder / "r0001.h5").unlink()
    lattices, _ = index(folder, folder / "lcls.geom")
    pd.testing.assert_frame_equal(lattices, whole)
    recorded = read_recorded_peaks(folder / "peaks.parquet", folder / "lcls.geom")
    np.testing.assert_allclose(
        camera_lengths_m(recorded.geometry, np.arange(6)),
        np.repeat([0.0, 0.004], 3) + DEMO_DISTANCE_M,
        atol=1e-9,
    )


def test_a_table_without_camera_lengths_gets_them_from_its_run_or_is_refused(found, tmp_path):
    folder = shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    table, metadata = folder / "peaks.parquet", read_table_metadata(folder / "peaks.parquet")
    kept = {n: v for n, v in metadata.items() if n not in ("clen_m", "table", "meaning")}
    kept["source"] = str(folder / "r0001.h5")
    write_table(read_table(table, PEAKS), table, PEAKS, extra=kept)
    recorded = read_recorded_peaks(table, folder / "lcls.geom")
    assert camera_lengths_m(recorded.geometry, np.array([5]))[0] == pytest.approx(DEMO_DISTANCE_M + 0.004)
    (folder / "r0001.h5").unlink()
    with pytest.raises(RunError, match=r"camera length is not known.*EncoderValue.*peaknet geometry"):
        read_recorded_peaks(table, folder / "lcls.geom")


def test_commands_after_find_and_the_completed_geometry_use_the_runs_distance(found, tmp_path):
    stream = tmp_path / "a.stream"
    lattices, _ = index(found, found / "lcls.geom", stream=stream)
    read = read_stream(stream)
    assert sorted(read.lattices["frame"].unique()) == sorted(lattices["frame"].unique())
    assert (read.lattices["n_explained"] > 0.9 * lattices["n_explained"]).all()
    given = {"geometry": found / "lcls.geom", "settings": [], "plot": None}
    cell_command(found / "peaks.parquet", out=tmp_path / "f.cell", **given)
    assert read_cell(tmp_path / "f.cell").a == pytest.approx(79.1, rel=0.02)
    refine_geometry_command(
        found / "peaks.parquet",
        found / "lattices.parquet",
        cell=found / "lcls.cell",
        out=tmp_path / "refined.geom",
        **given,
    )
    refined = read_geometry(tmp_path / "refined.geom")
    assert refined.clen_path == ENCODER_PATH
    assert refined.panels[0].coffset_m == pytest.approx(COFFSET_M, abs=5e-4)


def test_peaknet_geometry_writes_numbers(found, tmp_path):
    told = write_run_geometry(found / "r0001.h5", geometry=found / "lcls.geom", out=tmp_path / "n.geom")
    completed = read_geometry(tmp_path / "n.geom")
    assert completed.clen_path is None
    assert completed.photon_energy_path is None
    assert completed.photon_energy_ev == DEMO_ENERGY_EV
    assert completed.panels[0].clen_m == pytest.approx(DEMO_DISTANCE_M + 0.002)
    assert completed.panels[0].adu_per_photon == pytest.approx(20.0)
    assert told["camera lengths in the file, m"] == pytest.approx(
        [1e-3 * ENCODER_MM, 1e-3 * ENCODER_MM + 0.004]
    )


def test_one_bad_shot_keeps_its_peaks_and_stops_nothing(tmp_path):
    store = Store(tmp_path)
    write_lcls_experiment(store.raw_root / "lcls", n_frames=4)
    run = store.raw_root / "lcls" / "r0001.h5"
    change_values(run, ENERGY_PATH, {0: float("nan")})
    change_values(run, ENCODER_PATH, {3: float("nan")})
    made = raw_run(store, KEY)
    assert all(check.passed for check in made.checks)
    assert made.figures["frames_without_resolution"] == 2
    for stage in (run_statistics, classical_peaks, classical_index):
        stage(store, KEY)
    peaks = read_table(peaks_path(store, KEY, "classical"), PEAKS)
    counts = np.bincount(peaks["frame"], minlength=4)
    assert (counts > 20).all()
    assert set(peaks.loc[peaks["inv_d"].isna(), "frame"]) == {0, 3}
    lattices = read_table(index_path(store, KEY, "classical"), INDEX)
    assert set(lattices["frame"]) == {1, 2}
    recorded = read_recorded_peaks(peaks_path(store, KEY, "classical"), run.with_name("lcls.geom"))
    assert np.isnan(recorded.photon_energy_ev).tolist() == [True, False, False, False]
    table = run_table(store)
    assert table["frames_without_resolution"].tolist() == [2]
    assert f"{KEY}  2 of 4 frames have no possible photon energy or camera length" in format_runs(table)
