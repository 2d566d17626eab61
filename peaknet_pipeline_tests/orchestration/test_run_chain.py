"""``peaknet run``: runs through the chain from a terminal, a line per stage, one line where one fails."""

import shutil

import pytest

from peaknet_pipeline.errors import ParameterError, PeaknetError
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.jobs import INFER, INGEST, SUMMARY
from peaknet_pipeline.orchestration.run_chain import run_keys, stages_until
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import classical_path


@pytest.fixture
def store(small_raw, tmp_path, monkeypatch):
    """A data root with raw runs and nothing made; what opening its instance sets in the environment is undone."""
    for name in ("DAGSTER_HOME", "PEAKNET_DATA"):
        monkeypatch.setenv(name, "")
    shutil.copytree(small_raw / "raw", tmp_path / "raw")
    return Store(tmp_path)


def run(store, *keys, until="classical_peaks", experiment=None, **options):
    """Return the lines said and the keys tried."""
    said, tried = [], []
    try:
        run_keys(
            store,
            keys,
            experiment=experiment,
            until=until,
            follow=bool(options),
            say=said.append,
            tried=tried,
            **options,
        )
    except PeaknetError as error:
        said.append(error)
    return said, tried


def test_the_stages_to_one_are_those_that_it_needs_upstream_first():
    assert stages_until("classical_index") == (
        "raw_run",
        "run_statistics",
        "classical_peaks",
        "found_cell",
        "classical_index",
    )
    assert stages_until("finder_scan") == ("raw_run", "run_statistics", "finder_scan")
    assert set(stages_until(None)) == {*INGEST, *INFER}
    order = [spec.name for spec in CHAIN]
    assert list(stages_until(None)) == sorted(stages_until(None), key=order.index)
    with pytest.raises(ParameterError, match=r"Did you mean classical_index\?"):
        stages_until("clasical_index")
    with pytest.raises(ParameterError, match="--until"):
        stages_until(SUMMARY[0])


def test_every_stage_says_a_line_with_its_counts_and_nothing_is_made_twice(store):
    said, tried = run(store, "small-r0001")
    assert [line.split()[1] for line in said] == ["raw_run", "run_statistics", "classical_peaks"]
    assert "12 frames" in said[0]
    assert "hits" in said[2]
    made = classical_path(store, "small-r0001").stat().st_mtime_ns
    assert run(store, "small-r0001") == (["  small-r0001: already made"], tried)
    assert classical_path(store, "small-r0001").stat().st_mtime_ns == made


def test_a_run_that_fails_is_one_line_and_the_others_are_made(store):
    (store.raw_root / "small" / "r0001.h5").write_bytes(b"no HDF5 at all" * 100)
    said, tried = run(store, experiment="small")
    assert tried == ["small-r0001", "small-r0002", "small-r0003"]
    failed = [line for line in said[:-1] if "FAILED" in line]
    assert len(failed) == 1
    assert failed[0].startswith("  small-r0001  raw_run")
    assert "r0001.h5" in failed[0]
    assert "Traceback" not in failed[0]
    assert "small-r0001: raw_run" in str(said[-1])
    assert classical_path(store, "small-r0002").is_file()
    assert classical_path(store, "small-r0003").is_file()


def test_new_runs_are_followed_until_interrupted(store):
    later = store.raw_root / "small" / "r0003.h5"
    aside = later.rename(store.root / "aside.h5")
    waited = []

    def wait(seconds):
        waited.append(seconds)
        if len(waited) > 1:
            raise KeyboardInterrupt
        aside.rename(later)
        import os

        os.utime(later, (1_700_000_000, 1_700_000_000))

    said, tried = run(store, "small-r0001", "small-r0002", until="raw_run", wait=wait)
    assert tried == ["small-r0001", "small-r0002", "small-r0003"]
    assert said[-1] == "  stopped following"


def test_no_run_named_and_a_run_without_files_are_refused_before_anything_is_made(store):
    assert "no run was named" in str(run(store)[0][-1])
    said, tried = run(store, "small-r0007")
    assert "small-r0007" in str(said[-1])
    assert tried == []
    assert not store.dagster_home.exists()
