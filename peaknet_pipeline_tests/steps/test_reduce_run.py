"""Data reduction: every frame is accounted for, nothing that indexes is thrown away, and the veto's loss is counted."""

import numpy as np
import pytest

from peaknet_pipeline.cli import main
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import INDEX, KEPT_FRAMES, PEAKS
from peaknet_pipeline.steps.peak_tables import peak_metadata
from peaknet_pipeline.steps.reduce_run import ReduceParams, choose_frames, veto_figures
from peaknet_pipeline.tables import make_table, read_table, write_table
from peaknet_pipeline_tests.runs.files import slab_geometry, write_slab_run

COUNTS = {0: 30, 1: 4, 2: 12, 3: 9, 40: 1}
"""Peaks of some of 200 frames; 0, 1 and 3 index."""


def tables():
    frames = np.repeat(list(COUNTS), list(COUNTS.values()))
    peaks = make_table(PEAKS, {c.name: np.ones(len(frames)) for c in PEAKS.columns} | {"frame": frames})
    lattices = make_table(INDEX, {c.name: np.ones(3) for c in INDEX.columns} | {"frame": [0, 1, 3]})
    return peaks, lattices


def chosen(**settings):
    peaks, lattices = tables()
    return choose_frames(peaks, [lattices], n_frames=200, params=ReduceParams(min_peaks=10, **settings))


def test_lattices_and_hits_are_kept_and_of_the_rest_a_sample():
    table = chosen(sampled_share=0.1)
    reasons = table["reason"].tolist()
    assert len(table) == 200
    assert [reasons[n] for n in (0, 1, 2, 3)] == ["lattice", "lattice", "hit", "lattice"]
    assert reasons.count("sampled") == 20
    assert (table["kept"] == (table["reason"] != "")).all()
    assert table["n_peaks"].sum() == sum(COUNTS.values())


def test_the_sample_is_the_same_each_time_and_another_with_another_seed():
    assert chosen(sampled_share=0.1).equals(chosen(sampled_share=0.1))
    assert not chosen(sampled_share=0.1).equals(chosen(sampled_share=0.1, sample_seed=1))
    assert chosen(sampled_share=0.0)["kept"].sum() == 4


def test_what_a_veto_by_peaks_alone_would_lose_is_counted():
    figures = veto_figures(chosen(), 10)
    assert (figures["veto_keeps_frames"], figures["veto_loses_indexed"], figures["indexed"]) == (2, 2, 3)
    assert figures["veto_loss"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["veto_loss_limit"] > figures["veto_loss"]
    assert veto_figures(chosen(), 4)["veto_loses_indexed"] == 0


def test_frames_beyond_the_run_are_refused():
    peaks, lattices = tables()
    with pytest.raises(ParameterError, match="outside the run"):
        choose_frames(peaks, [lattices], n_frames=40, params=ReduceParams())


def test_a_networks_unsure_peaks_make_no_hit():
    peaks, lattices = tables()
    peaks["score"] = np.where(peaks["frame"] == 2, 0.1, 0.9).astype(np.float32)
    table = choose_frames(
        peaks, [lattices], n_frames=200, params=ReduceParams(min_peaks=10, sampled_share=0.0)
    )
    assert np.flatnonzero(table["kept"]).tolist() == [0, 1, 3]
    assert table["n_peaks"][2] == 0


def test_the_command_copies_the_kept_frames_and_leaves_the_run_alone(tmp_path, capsys):
    stack = write_slab_run(tmp_path / "run.cxi", n=6)
    before = (tmp_path / "run.cxi").read_bytes()
    (tmp_path / "d.geom").write_text(slab_geometry().text)
    numbers = np.repeat([1, 4, 5], [3, 1, 2])
    columns = {c.name: np.ones(6) for c in PEAKS.columns} | {"frame": numbers, "panel": np.zeros(6)}
    with open_run(tmp_path / "run.cxi", tmp_path / "d.geom") as run:
        metadata = peak_metadata(run, finder="peakfinder8", parameters={})
    write_table(make_table(PEAKS, columns), tmp_path / "p.parquet", PEAKS, extra=metadata)
    words = "reduce {0}/p.parquet --geometry {0}/d.geom --out {0}/k.parquet --cxi {0}/k.cxi"
    main([*words.format(tmp_path).split(), "--set", "min_peaks=2", "--set", "sampled_share=0"])
    assert "bytes kept" in capsys.readouterr().out
    assert np.flatnonzero(read_table(tmp_path / "k.parquet", KEPT_FRAMES)["kept"]).tolist() == [1, 5]
    with open_run(tmp_path / "k.cxi", tmp_path / "k.geom") as kept:
        assert np.array_equal(kept.read(0, kept.n_frames), stack[[1, 5]])
    assert (tmp_path / "run.cxi").read_bytes() == before
