"""The ``peaknet merge`` command: reflection tables and CrystFEL streams to one merged set with its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.stream_read import read_stream
from peaknet_pipeline.merging.combine import combine_runs
from peaknet_pipeline.merging.figures import MergedSet, merged_set
from peaknet_pipeline.merging.files import write_hkl, write_merged_mtz, write_unmerged_mtz
from peaknet_pipeline.merging.parameters import MergeParams
from peaknet_pipeline.merging.run_sums import ScaledRun, merge_run
from peaknet_pipeline.merging.symmetry import Symmetry, find_symmetry
from peaknet_pipeline.plots.merging import plot_merging
from peaknet_pipeline.provenance import command_origin
from peaknet_pipeline.schemas import (
    MERGE_CRYSTALS,
    MERGE_SHELLS,
    REFLECTIONS,
    MergeCrystalTable,
    ReflectionTable,
)
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.tables import read_table, write_table
from peaknet_pipeline.types import UnitCell


@dataclass(frozen=True)
class Merging:
    """A merged set of one or several runs: its reflections and figures, and how each crystal was scaled.

    Attributes
    ----------
    merged : MergedSet
        ``reflections``, figures by shell with standard errors (``shells``), Wilson plot (``wilson``).
    crystals : MergeCrystalTable
        One row per crystal of all runs, with the reason of those left out.
    cell : UnitCell
    symmetry : Symmetry

    """

    merged: MergedSet
    crystals: MergeCrystalTable
    cell: UnitCell
    symmetry: Symmetry

    def __repr__(self) -> str:
        """Return the overall figures."""
        told = self.figures()
        return (
            f"<Merging: {told['reflections']} reflections of {told['crystals']} crystals to {told['resolution']} Å, "
            f"completeness {told['completeness']}, CC1/2 {told['cc_half']}>"
        )

    def figures(self) -> dict[str, Any]:
        """Return the overall figures with their standard errors."""
        return merge_figures(self.merged, self.crystals)

    def write_mtz(self, path: Path | str) -> None:
        """Write the merged reflections as MTZ."""
        write_merged_mtz(Path(path), self.merged.reflections, cell=self.cell, symmetry=self.symmetry)


def merge_figures(merged: MergedSet, crystals: MergeCrystalTable) -> dict[str, Any]:
    """Return the overall figures of a merged set with their standard errors."""
    row = merged.overall if len(merged.shells) else pd.Series(dtype=float)
    high = float(row.get("inv_d_high", float("nan")))
    rejected = crystals[~crystals["accepted"]]
    names = (
        "completeness",
        "multiplicity",
        "mean_snr",
        "cc_half",
        "cc_half_error",
        "cc_star",
        "cc_star_error",
    )
    return {
        "crystals": int(crystals["accepted"].sum()),
        "rejected": len(rejected),
        "rejected_because": {str(k): int(n) for k, n in rejected["reason"].value_counts().items()},
        "other_settings": int((crystals["setting"] > 0).sum()),
        "reflections": len(merged.reflections),
        "resolution": round(1.0 / high, 2) if high else float("nan"),
        **{
            name: round(float(row.get(name, float("nan"))), 4)
            for name in (*names, "r_split", "r_split_error")
        },
        "wilson_b": round(merged.wilson.b_factor, 1),
        "wilson_b_error": round(merged.wilson.b_error, 1),
    }


def merge_tables(
    tables: Mapping[str, ReflectionTable], *, cell: UnitCell, symmetry: Symmetry, params: MergeParams
) -> tuple[Merging, list[ScaledRun]]:
    """Merge the reflections of runs, by name: each scaled by itself, then all on one scale."""
    runs = []
    with progress_bar("merging") as progress:
        for done, (name, table) in enumerate(tables.items(), start=1):
            runs.append(merge_run(table, run=name, cell=cell, symmetry=symmetry, params=params))
            progress(done, len(tables))
    total, _ = combine_runs([run.sums for run in runs], cell=cell, symmetry=symmetry)
    merged = merged_set(total, cell=cell, symmetry=symmetry, params=params)
    crystals = pd.concat([run.sums.crystals for run in runs], ignore_index=True)
    return Merging(merged, crystals, cell, symmetry), runs


def read_reflections(path: Path) -> ReflectionTable:
    """Read integrated reflections: a Parquet table of this package, or a CrystFEL stream.

    Raises
    ------
    TableError, IndexingError
        The file is neither, or damaged.

    """
    if path.suffix == ".stream":
        return read_stream(path).reflections
    return read_table(path, REFLECTIONS)


def merge_command(
    inputs: Sequence[Path],
    *,
    cell: Path,
    symmetry: str,
    out: Path,
    settings: Sequence[str] = (),
    unmerged: Path | None = None,
    hkl: Path | None = None,
    shells: Path | None = None,
    crystals: Path | None = None,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Merge reflection tables and streams; see ``peaknet merge``.

    Raises
    ------
    TableError, IndexingError, CellError, ParameterError
        An input, the cell, the symmetry or a setting is unusable.

    """
    params = MergeParams.from_settings(settings)
    if unmerged is not None and len(inputs) > 1:
        raise ParameterError(
            "unmerged reflections are of one table",
            where="--unmerged",
            found=f"{len(inputs)} tables",
            remedy="Merge them one by one for it, or join streams with cat.",
        )
    target = read_cell(cell)
    group = find_symmetry(symmetry, target, friedel=params.friedel)
    tables = {_name(path, inputs): read_reflections(path) for path in inputs}
    merging, runs = merge_tables(tables, cell=target, symmetry=group, params=params)
    merging.write_mtz(out)
    given = {"symmetry": symmetry, "settings": list(settings)}
    origin = command_origin("merge", given, [*inputs, cell])
    made = merging.merged
    if unmerged is not None:
        write_unmerged_mtz(unmerged, runs[0], cell=target, symmetry=group)
    if hkl is not None:
        for path, half in half_files(hkl):
            write_hkl(path, made.reflections, symmetry=group, half=half)
    if shells is not None:
        write_table(made.shells, shells, MERGE_SHELLS, extra=origin)
    if crystals is not None:
        write_table(merging.crystals, crystals, MERGE_CRYSTALS, extra=origin)
    if plot is not None:
        write_file(plot, plot_merging(made.shells, made.wilson, title=out.stem))
    return merging.figures() | {"out": str(out)}


def half_files(hkl: Path) -> list[tuple[Path, str]]:
    """Return the files of a CrystFEL list and its two halves, as process_hkl names them, with the halves' suffixes."""
    return [(hkl, ""), (Path(f"{hkl}1"), "_1"), (Path(f"{hkl}2"), "_2")]


def _name(path: Path, inputs: Sequence[Path]) -> str:
    return path.stem if len({one.stem for one in inputs}) == len(inputs) else str(path)
