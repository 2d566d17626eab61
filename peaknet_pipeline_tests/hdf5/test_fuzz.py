"""Hostile files of every storage, by every door: read or refused, whatever they are."""

from pathlib import Path

from peaknet_pipeline_tests.hdf5.fuzz import ANSWERED, OUTCOMES, REFUSED, run

N_FILES = 200


def test_hostile_files_are_read_or_refused_within_time_and_memory(tmp_path: Path) -> None:
    """The first of the 3,000 and more that ``python -m peaknet_pipeline_tests.hdf5.fuzz`` tries."""
    counts, failures = run(range(N_FILES), tmp_path / "files")
    assert failures == []
    assert min(counts[OUTCOMES[ANSWERED]], counts[OUTCOMES[REFUSED]]) > N_FILES // 5
