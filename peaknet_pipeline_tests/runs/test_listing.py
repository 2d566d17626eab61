"""Only complete runs are offered."""

import os
import time
from pathlib import Path

import h5py
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.listing import list_runs
from peaknet_pipeline_tests.runs.files import write_slab_run

LATER = 1000.0


def _states(root: Path, **options: object) -> dict[str, str]:
    listed = list_runs(root, now_s=time.time() + LATER, **options)  # type: ignore[arg-type]
    return {str(run.path.relative_to(root)): run.state for run in listed}


def test_settled_files_are_complete_and_fresh_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_slab_run(tmp_path / "b.cxi")
    write_slab_run(tmp_path / "sub" / "a.h5")
    assert _states(tmp_path) == {"b.cxi": "complete", "sub/a.h5": "complete"}
    assert {run.state for run in list_runs(tmp_path, settle_s=60)} == {"written"}
    (run,) = list_runs(tmp_path, now_s=time.time() + LATER, known={tmp_path / "b.cxi"})
    assert run.path == tmp_path / "sub" / "a.h5"
    assert run.size_bytes == run.path.stat().st_size


def test_a_file_that_is_open_for_writing_is_not_complete(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "a.h5")
    with h5py.File(tmp_path / "swmr.h5", "w", libver="latest") as file:
        file["x"] = [1]
        file.swmr_mode = True
        file.flush()
        content = (tmp_path / "swmr.h5").read_bytes()
    (tmp_path / "swmr.h5").write_bytes(content)  # as left by a writer that is still there, or died
    assert _states(tmp_path) == {"a.h5": "complete", "swmr.h5": "written"}


def test_a_truncated_file_waits_an_hour_before_it_counts_as_broken(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "cut.h5")
    os.truncate(tmp_path / "cut.h5", 2000)
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("hello" * 1000)
    assert _states(tmp_path) == {"cut.h5": "written", "empty.h5": "written", "text.h5": "broken"}
    old = list_runs(tmp_path, now_s=time.time() + 9999)
    assert {run.state for run in old} == {"broken"}
    assert "truncated" in old[0].reason


def test_hidden_linked_and_foreign_files_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    (root / ".hidden").mkdir(parents=True)
    for name in ("run_master.h5", "run_data_000001.h5", ".tmp.h5", ".hidden/x.h5"):
        write_slab_run(root / name)
    (root / "notes.txt").write_text("x")
    write_slab_run(tmp_path / "outside.h5")
    (root / "link.h5").symlink_to(tmp_path / "outside.h5")
    assert _states(root) == {"run_master.h5": "complete"}
    listed = list_runs(root, settle_s=0, more_roots=[tmp_path])
    assert [run.path.name for run in listed] == ["link.h5", "run_master.h5"]


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        list_runs(tmp_path / "none")
