"""The external engine's false-index control: its own hits, azimuths scrambled, through the same program."""

import os
import shutil
import stat

import h5py
import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import peak_inv_d
from peaknet_pipeline.indexing.control import ControlRecord, scramble_peaks
from peaknet_pipeline.indexing.indexamajig import IndexamajigParams, run_indexamajig
from peaknet_pipeline.indexing.stream_file import StreamSource, write_stream
from peaknet_pipeline.runs.cxi_images import slab_of
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import INDEX, PEAKS, REFLECTIONS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.detectors import ENERGY_PATH
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.steps.find_in_file import find_command
from peaknet_pipeline.steps.index_run import index_with_crystfel
from peaknet_pipeline.tables import empty_table, make_table, read_table
from peaknet_pipeline_tests.indexing.spots import ENERGY_EV, LYSOZYME, flat_geometry

PROGRAM = """#!/bin/sh
echo "$*" >> "{folder}/calls"
while [ $# -gt 0 ]; do [ "$1" = "-o" ] && out="$2"; shift; done
cp "{folder}/made.stream" "$out"
"""
"""A stand-in that answers every call with the same two indexed frames."""


def random_peaks(shape, counts, seed):
    generator = np.random.default_rng(seed)
    n = sum(counts)
    columns = {c.name: np.ones(n) for c in PEAKS.columns if not c.nullable}
    columns["frame"] = np.repeat(np.arange(len(counts)), counts)
    columns["panel"] = generator.integers(0, shape[0], n)
    columns["ss"], columns["fs"] = (generator.uniform(1, size - 2, n) for size in shape[1:])
    return make_table(PEAKS, columns)


@pytest.fixture
def world(tmp_path, monkeypatch):
    experiment = demo_experiment(3)
    geometry, cell = write_experiment_files(experiment, tmp_path)
    simulate_run(experiment, tmp_path / "r0001.h5", n_frames=4, seed=1, run_number=1)
    names = [f"{a}star_{x}" for a in "abc" for x in "xyz"]
    axes = np.tile(np.diag([0.0126, 0.0126, 0.0264]).ravel(), (2, 1))
    about = {"frame": [0, 1], "lattice": [0, 0], "n_peaks": [9, 9], "n_explained": [9, 9], "residual": [0, 0]}
    write_stream(
        tmp_path / "made.stream", source=StreamSource(tmp_path / "r0001.h5", 3), geometry=read_geometry(geometry),
        cell=LYSOZYME, photon_energy_ev=ENERGY_EV, peaks=empty_table(PEAKS),
        lattices=make_table(INDEX, about | dict(zip(names, axes.T, strict=True))),
        reflections=empty_table(REFLECTIONS),
    )  # fmt: skip
    program = tmp_path / "bin" / "indexamajig"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(folder=tmp_path))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path, geometry, cell


def test_indexamajigs_rate_comes_with_its_control_over_the_hits(world):
    folder, geometry, cell = world
    with open_run(folder / "r0001.h5", read_geometry(geometry)) as run:
        peaks = random_peaks(run.info.stack_shape, (20, 20, 20, 6), seed=1)
        bad = run.bad_pixels.copy()
        bad[0, 3, 5] = True
        whole = IndexamajigParams(control_share=1.0, multi=True)
        found = index_with_crystfel(
            run, peaks, cell, folder / "out" / "r0001.cxi", whole, bad_pixels=bad, min_peaks=15
        )
        slab = slab_of(run)
    calls = (folder / "calls").read_text().splitlines()
    with h5py.File(folder / "out" / "control" / "r0001.cxi") as file:
        counts = file["/entry_1/result_1/nPeaks"][:]
        masks = [file["/entry_1/data_1/mask"][:]]
    with h5py.File(folder / "out" / "r0001.cxi") as file:
        masks.append(file["/entry_1/data_1/mask"][:])

    assert list(found.lattices["frame"]) == [0, 1]
    assert all(np.array_equal(mask, slab.from_stack(bad)) for mask in masks)
    assert found.indexed_by == {0: "file", 1: "file", 2: "none"}
    assert ["--retry" in c for c in calls] == ["--multi" in c for c in calls] == [True, False]
    assert found.control == ControlRecord(n_scrambled=3, n_indexed=2, min_significance=0.0)
    assert [set("/".join(c.split()).split("/")) >= {"control"} for c in calls] == [False, True]
    assert list(counts) == [20, 20, 20]
    assert (folder / "out" / "control" / "r0001.log").is_file()


def test_frames_without_energy_are_not_given_to_indexamajig_and_the_others_keep_their_numbers(world):
    folder, geometry, cell = world
    with h5py.File(folder / "r0001.h5", "r+") as file:
        file[ENERGY_PATH][0] = 0.0
    with open_run(folder / "r0001.h5", read_geometry(geometry)) as run:
        peaks = random_peaks(run.info.stack_shape, (20, 20, 20, 6), seed=1)
        whole = IndexamajigParams(control_share=1.0)
        found = index_with_crystfel(run, peaks, cell, folder / "out" / "r0001.cxi", whole)
    with h5py.File(folder / "out" / "r0001.cxi") as file:
        assert list(file["/entry_1/result_1/frame"]) == [1, 2, 3]
    assert list(found.lattices["frame"]) == [1, 2]
    assert found.indexed_by == {1: "file", 2: "file", 3: "none"}
    assert found.control.n_scrambled == 2


def test_a_run_without_hits_has_no_control(world):
    folder, geometry, cell = world
    with open_run(folder / "r0001.h5", read_geometry(geometry)) as run:
        peaks = random_peaks(run.info.stack_shape, (6, 6, 6, 6), seed=2)
        control = index_with_crystfel(run, peaks, cell, folder / "out" / "r0001.cxi").control

    assert control.n_scrambled == 0
    assert len((folder / "calls").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("share", "most", "n_hits", "expected"),
    [
        (0.25, 500, 40, 10),
        (0.25, 500, 3, 1),
        (0.25, 500, 10_000, 500),
        (1.0, 500, 7, 7),
        (0.0, 500, 7, 0),
        (0.25, 500, 0, 0),
    ],
)
def test_the_control_is_a_sample_of_the_hits(share, most, n_hits, expected):
    assert IndexamajigParams(control_share=share, control_frames=most).n_control(n_hits) == expected


def test_scrambled_peaks_keep_resolution_and_number_and_lie_on_panels():
    geometry = flat_geometry()
    peaks = random_peaks((2, 1200, 600), (200, 100), seed=3)
    scrambled = scramble_peaks(peaks, geometry, seed=4)
    inv_d = [
        peak_inv_d(geometry, *(t[n].to_numpy() for n in ("panel", "fs", "ss")), ENERGY_EV)
        for t in (peaks, scrambled)
    ]
    again = scramble_peaks(peaks, geometry, seed=4)

    assert np.allclose(inv_d[0], inv_d[1], rtol=1e-4)
    assert (scrambled["frame"] == peaks["frame"]).all()
    assert scrambled["ss"].between(-0.5, 1199.5).all()
    assert scrambled["fs"].between(-0.5, 599.5).all()
    assert (np.hypot(scrambled["fs"] - peaks["fs"], scrambled["ss"] - peaks["ss"]) > 5).mean() > 0.8
    pd.testing.assert_frame_equal(scrambled, again)


@pytest.mark.skipif(shutil.which("indexamajig") is None, reason="CrystFEL is not installed")
def test_the_real_indexamajig_reads_the_peaks_of_a_cxi_file(tmp_path):
    """Each peak that it reports is one of the file's, at the same place; its validation may drop some."""
    experiment = demo_experiment(3)
    geometry, cell = write_experiment_files(experiment, tmp_path)
    run = simulate_run(experiment, tmp_path / "r0001.h5", n_frames=4, seed=1, run_number=1)
    find_command(
        run, geometry=geometry, finder="peakfinder8", model=None, settings=("threshold=70",), masks=(),
        out=tmp_path / "peaks.parquet", cxi=tmp_path / "peaks.cxi",
    )  # fmt: skip
    ours = read_table(tmp_path / "peaks.parquet", PEAKS)
    stream = run_indexamajig(
        tmp_path / "peaks.cxi", geometry=tmp_path / "peaks.geom", cell=cell, stream=tmp_path / "peaks.stream",
        params=IndexamajigParams(indexing="none", min_peaks=0, n_processes=1),
    )  # fmt: skip
    assert len(stream.peaks) >= 0.8 * len(ours) > 20
    for frame, theirs in stream.peaks.groupby("frame"):
        known = ours[ours["frame"] == frame]
        place = ["panel", "fs", "ss"]
        distance = np.abs(theirs[place].to_numpy()[:, None] - known[place].to_numpy()[None]).max(axis=2)
        assert distance.min(axis=1).max() < 0.02
