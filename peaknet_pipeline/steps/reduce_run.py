"""Which frames of a run are kept, which may be thrown away, and what that loses; see ``peaknet reduce``.

A frame is kept for its lattice, for its number of peaks, or as one of the sampled rest that later shows what was thrown away.
What a veto by the number of peaks alone would lose is measured on the frames that index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.hits import HitParams, hit_peaks
from peaknet_pipeline.metrics import wilson_interval
from peaknet_pipeline.params import parameter
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.schemas import INDEX, KEPT_FRAMES, IndexTable, PeakTable
from peaknet_pipeline.steps.peak_record import open_source, read_recorded_peaks
from peaknet_pipeline.tables import make_table, read_table, write_table
from peaknet_pipeline.types import IntArray

LATTICE, HIT, SAMPLE = "lattice", "hit", "sampled"
"""Why a frame is kept."""


@dataclass(frozen=True)
class ReduceParams(HitParams):
    """What of a run is kept."""

    sampled_share: float = parameter(
        0.01, meaning="share of the other frames that is kept as a sample of what is thrown away", ge=0, le=1
    )
    sample_seed: int = parameter(0, meaning="seed of that sample", ge=0)


def choose_frames(
    peaks: PeakTable, lattices: Sequence[IndexTable], *, n_frames: int, params: ReduceParams
) -> pd.DataFrame:
    """Return what becomes of each frame, one row each (``KEPT_FRAMES``).

    Raises
    ------
    ParameterError
        A table names a frame that the run doesn't have.

    """
    frames = [table["frame"].to_numpy(np.int64) for table in (peaks, *lattices)]
    last = max((int(numbers.max()) for numbers in frames if numbers.size), default=-1)
    if last >= n_frames:
        raise ParameterError("a frame outside the run", expected=f"0 … {n_frames - 1}", found=last)
    counts = np.bincount(hit_peaks(peaks)["frame"].to_numpy(np.int64), minlength=n_frames)
    indexed = np.isin(np.arange(n_frames), np.concatenate([*frames[1:], np.zeros(0, dtype=np.int64)]))
    hit = counts >= params.min_peaks
    rest = np.flatnonzero(~hit & ~indexed)
    generator = np.random.default_rng(params.sample_seed)
    sample = generator.choice(rest, int(np.ceil(params.sampled_share * rest.size)), replace=False)
    reason = np.full(n_frames, "", dtype=object)
    reason[sample] = SAMPLE
    reason[hit] = HIT
    reason[indexed] = LATTICE
    columns = {"frame": np.arange(n_frames), "kept": reason != "", "reason": reason}
    return make_table(KEPT_FRAMES, columns | {"n_peaks": counts, "indexed": indexed})


def veto_figures(table: pd.DataFrame, min_peaks: int) -> dict[str, Any]:
    """Return what a veto by the number of peaks alone keeps, and what share of the indexable frames it loses."""
    passed, indexed = (table["n_peaks"] >= min_peaks).to_numpy(), table["indexed"].to_numpy()
    lost, whole = int((indexed & ~passed).sum()), int(indexed.sum())
    return {
        "veto_keeps_frames": int(passed.sum()),
        "veto_loses_indexed": lost,
        "indexed": whole,
        "veto_loss": round(lost / whole, 4) if whole else float("nan"),
        "veto_loss_limit": round(wilson_interval(lost, whole)[1], 4),
    }


def reduce_command(
    peaks: Path,
    *,
    geometry: Path,
    lattices: Sequence[Path],
    settings: Sequence[str],
    out: Path,
    cxi: Path | None,
    roots: Sequence[Path],
) -> dict[str, Any]:
    """Choose the frames of a run that are kept; see ``peaknet reduce``.

    Raises
    ------
    TableError, GeometryError, ParameterError
        An input or setting is unusable.
    RunError
        The raw run isn't there any more.

    """
    params = ReduceParams.from_settings(settings)
    recorded = read_recorded_peaks(peaks, geometry)
    tables = [read_table(path, INDEX) for path in lattices]
    table = choose_frames(recorded.peaks, tables, n_frames=recorded.n_frames, params=params)
    kept: IntArray = table["frame"].to_numpy(np.int64)[table["kept"].to_numpy()]
    told: dict[str, Any] = {"frames": len(table), "frames_kept": len(kept)}
    told |= {f"kept_{name}": int((table["reason"] == name).sum()) for name in (LATTICE, HIT, SAMPLE)}
    told |= veto_figures(table, params.min_peaks)
    source = recorded.metadata.get("source", "")
    record = {"stage": "peaknet reduce", "source": source, "parameters": str(params.to_dict())}
    if cxi is not None:
        with open_source(recorded.metadata, recorded.geometry, roots=roots) as run:
            report = write_cxi_peaks(
                cxi, recorded.peaks, run, frames=kept, images="copy",
                bad_pixels=recorded.bad_pixels(run), provenance=record,
            )  # fmt: skip
            before, after = run.info.size_bytes, cxi.stat().st_size
        told |= {"raw_bytes": before, "cxi_bytes": after, "bytes_kept": round(after / max(before, 1), 4)}
        told |= {"cxi": str(cxi), "geometry": str(report.geometry_path)}
    write_table(table, out, KEPT_FRAMES, extra=record | {name: str(value) for name, value in told.items()})
    return told | {"out": str(out)}
