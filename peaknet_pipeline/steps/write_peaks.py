"""What is written of a run's peaks: everything, or hits only; CXI lists with linked or copied images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peaknet_pipeline.infer.found import keep_hits
from peaknet_pipeline.infer.params import OutputParams
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.steps.peak_record import FRAME_VALUES
from peaknet_pipeline.tables import write_table
from peaknet_pipeline.types import BoolArray, IntArray


@dataclass(frozen=True)
class Written:
    """What was written: the peaks kept, and figures about it."""

    peaks: PeakTable
    figures: dict[str, int | float]


def write_found(
    peaks: PeakTable,
    run: Run,
    *,
    params: OutputParams,
    out: Path,
    cxi: Path | None,
    metadata: Mapping[str, str],
    bad_pixels: BoolArray | None = None,
) -> Written:
    """Write a run's peaks as a table and, if ``cxi`` is given, as a CXI file, all frames or hits only.

    The figures tell the hits and the share of the frames that is kept, what the limit of a CXI list left out, and, with
    copied images, the bytes of the CXI file over those of the raw run. ``bad_pixels``, (n_panels, ss, fs), are all pixels that
    were left out; the run's own by default.
    """
    figures: dict[str, int | float] = {}
    hits: IntArray | None = None
    if params.hits_only:
        peaks, hits, reduction = keep_hits(peaks, min_peaks=params.min_peaks, n_frames=run.n_frames)
        figures |= reduction.to_dict()
        metadata = dict(metadata) | {name: str(value) for name, value in figures.items()}
        metadata |= {"hits_only": "true", "min_peaks": str(params.min_peaks)}
    metadata = {"min_peaks": str(params.min_peaks), **metadata}
    write_table(peaks, out, PEAKS, extra=metadata)
    if cxi is not None:
        figures |= _write_cxi(cxi, peaks, run, hits, params, metadata, bad_pixels)
    return Written(peaks, figures)


def _write_cxi(
    path: Path,
    peaks: PeakTable,
    run: Run,
    hits: IntArray | None,
    params: OutputParams,
    metadata: Mapping[str, str],
    bad_pixels: BoolArray | None,
) -> dict[str, Any]:
    images: Literal["link", "copy"] = "copy" if params.images == "copy" else "link"
    told = short_metadata(metadata)
    report = write_cxi_peaks(
        path, peaks, run, frames=hits, images=images, bad_pixels=bad_pixels, provenance=told
    )
    figures: dict[str, Any] = {
        "cxi_clipped_frames": report.n_clipped_frames,
        "cxi_clipped_peaks": report.n_clipped_peaks,
    }
    if images == "copy":
        raw, written = run.info.size_bytes, path.stat().st_size
        figures |= {"cxi_bytes": written, "raw_bytes": raw, "bytes_kept": round(written / max(raw, 1), 4)}
    return figures


def short_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a table's metadata without the values of its frames: an HDF5 attribute holds 64 kB at most."""
    return {name: value for name, value in metadata.items() if name not in FRAME_VALUES}
