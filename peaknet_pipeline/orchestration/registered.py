"""Which runs are registered, for commands that only look: without importing Dagster where its own file tells."""

import sqlite3
from contextlib import closing
from pathlib import Path

import yaml

from peaknet_pipeline.store.layout import Store

PARTITIONS = "experiment_runs"
"""Name of the dynamic partitions definition that holds the runs."""

INDEX = Path("history") / "runs" / "index.db"
"""Where Dagster's SQLite storage keeps dynamic partitions, below its home."""

ELSEWHERE = ("storage", "event_log_storage", "local_artifact_storage")
"""Keys of ``dagster.yaml`` that put the storage elsewhere."""


def registered_keys(store: Store) -> list[str]:
    """Return the keys that the data root's instance knows, in order; none where there is no instance yet.

    Importing Dagster takes longer than all the rest of a command that prints a table; so that its SQLite file is read where
    it has one, and Dagster asked where it hasn't or the file is not as expected.
    """
    settings = store.dagster_home / "dagster.yaml"
    if not settings.is_file():
        return []
    try:
        values = yaml.safe_load(settings.read_text(encoding="utf-8")) or {}
        if not any(name in values for name in ELSEWHERE):
            return sorted(_read_index(store.dagster_home / INDEX))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, sqlite3.Error):
        pass
    from peaknet_pipeline.orchestration.instance import open_instance

    return sorted(open_instance(store).get_dynamic_partitions(PARTITIONS))


def _read_index(path: Path) -> list[str]:
    if not path.is_file():
        return []
    query = "SELECT partition FROM dynamic_partitions WHERE partitions_def_name = ?"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as index:
        return [str(row[0]) for row in index.execute(query, (PARTITIONS,))]
