"""What an asset declares about itself, beside its function; Dagster's assets and the reference are made from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.params import Parameters
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE
from peaknet_pipeline.store.stage_result import StageResult

INGEST, IMPROVE, INFER, SUMMARIZE = "ingest_run", "improve_model", "infer_run", "summarize"
"""The jobs: a raw run to labels; one turn of the loop; a raw run to rates; all runs to one table."""

MISSING, UPDATED = "missing", "updated"
"""When an asset is made without being asked for: where its output is missing, or after any input was made anew."""


@dataclass(frozen=True)
class Asset:
    """One asset of the chain.

    Attributes
    ----------
    run : callable
        Makes it; the asset bears its name and its docstring.
    deps : tuple of str
        Names of the assets that it reads.
    job : str, optional
        The job that it belongs to; without one it is made by hand.
    output : callable, optional
        Gives its main file from store and key (``all`` unless ``per_run``); a table of the asset's name by default.
    per_run : bool
        Made for each run by itself, or over all runs.
    kinds : tuple of str
        Shown on the lineage page.
    parameters : type of Parameters, optional
        What can be chosen when it is made.
    tables : tuple of str
        Schemas of its tables, each of which is checked.
    checks, blocking : tuple of str
        Names of its checks; those that stop what follows where they fail.
    pool : str, optional
        What it must wait for, such as ``gpu``.
    automation : str, optional
        ``MISSING`` or ``UPDATED``.

    """

    run: Callable[..., StageResult]
    deps: tuple[str, ...] = ()
    job: str | None = None
    output: Callable[[Store, str], Path] | None = None
    per_run: bool = True
    kinds: tuple[str, ...] = ()
    parameters: type[Parameters] | None = None
    tables: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    blocking: tuple[str, ...] = ()
    pool: str | None = None
    automation: str | None = None

    @property
    def name(self) -> str:
        """The asset's name, which is its function's."""
        return self.run.__name__

    @property
    def code_version(self) -> str:
        """The version of its meaning."""
        return CODE[self.name]

    def path(self, store: Store, key: str) -> Path:
        """Return where its main file lies."""
        return store.table(self.name, key) if self.output is None else self.output(store, key)
