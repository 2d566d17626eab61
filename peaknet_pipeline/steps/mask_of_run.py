"""The mask of a run from its own frames and from files, its figures and its picture; see ``peaknet mask``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.assemble import assemble
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.hdf5.attributes import write_text
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.plots.images import plot_mask
from peaknet_pipeline.provenance import command_origin
from peaknet_pipeline.runs.bad_pixels import RUN_LAYER, BadPixelParams, BadPixelReport
from peaknet_pipeline.runs.make_mask import MaskParams, make_mask, run_rings
from peaknet_pipeline.runs.masks import MASK_FRAME, add_mask, write_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.rings import RingParams, ring_summary
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.slabs import is_one_data_set
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline.steps.progress import Progress, progress_bar
from peaknet_pipeline.types import Geometry, RunStatistics


@dataclass(frozen=True)
class StatisticsParams(BadPixelParams, MaskParams):
    """How bad pixels are found, and what else is masked: the sections ``bad_pixels`` and ``mask``."""


def mask_run(
    run: Run, settings: StatisticsParams, *, progress: Progress | None = None
) -> tuple[RunStatistics, BadPixelReport]:
    """Return a run's statistics and the mask that its frames, its files and the settings make."""
    params, bad_pixels = MaskParams.part_of(settings), BadPixelParams.part_of(settings)
    statistics = compute_statistics(run, max_frames=bad_pixels.max_frames, progress=progress)
    return statistics, make_mask(run, statistics, params, bad_pixels)


def mask_figures(report: BadPixelReport) -> dict[str, Any]:
    """Return how many pixels a mask takes, and how many each source took that no earlier one had."""
    return {
        "bad_pixels": int(report.bad_pixels.sum()),
        "bad_fraction": float(report.bad_pixels.mean()),
        "hot": int(report.hot.sum()),
        "noisy": int(report.noisy.sum()),
        "dead": int(report.dead.sum()),
        **{f"new_from_{_plain_name(s.name)}": s.n_new for s in report.sources},
        **({"doubts": list(report.doubts)} if report.doubts else {}),
    }


def _plain_name(name: str) -> str:
    return name.strip("/").replace("/", "_").replace(" ", "_")


def plot_report(report: BadPixelReport, geometry: Geometry, *, title: str) -> bytes:
    """Draw a mask on the assembled detector, each pixel in the colour of the first layer that calls it bad."""
    first = np.zeros(report.bad_pixels.shape, dtype=np.float32)
    for k, layer in reversed(list(enumerate(report.layers.values(), start=1))):
        first[layer] = k
    image = np.asarray(assemble(first, geometry), dtype=np.float32)
    return plot_mask(image, title=title, reasons=tuple(report.layers), stack=first)


def write_statistics(
    path: Path, statistics: RunStatistics, report: BadPixelReport, rings: RingParams
) -> None:
    """Write a run's statistics and its mask, with who removed how many pixels and which, as HDF5."""
    with new_hdf5(path) as file:
        for name in ("mean", "std", "maximum"):
            file.create_dataset(name, data=getattr(statistics, name), compression="gzip", compression_opts=1)
        file.attrs["n_frames"] = statistics.n_frames
        write_text(file, "left_out_rings", json.dumps(rings.to_dict()))
        add_mask(file, report.bad_pixels, sources=report.sources, layers=report.layers)


def mask_command(
    path: Path,
    *,
    geometry: Path | None,
    masks: Sequence[Path] = (),
    darks: Sequence[Path] = (),
    settings: Sequence[str] = (),
    out: Path,
    plot: Path | None = None,
    roots: Sequence[Path] = (),
    invert_masks: bool = False,
) -> dict[str, Any]:
    """Make the mask of one file and write it, with its layers; see ``peaknet mask``."""
    given = StatisticsParams.from_settings(settings)
    params = replace(
        given,
        mask_files=(*given.mask_files, *map(str, masks)),
        dark_files=(*given.dark_files, *map(str, darks)),
        invert_masks=given.invert_masks or invert_masks,
    )
    known = read_geometry(geometry) if geometry is not None else None
    with (
        open_run(path, known, more_roots=roots, invert_masks=params.invert_masks) as run,
        progress_bar(f"mask {path.name}") as progress,
    ):
        statistics, report = mask_run(run, params, progress=progress)
        rings = ring_summary(run_rings(run, statistics, report.layers[RUN_LAYER]))
        if plot is not None:
            write_file(plot, plot_report(report, geometry_of(run), title=path.name))
        whole = run.geometry if run.geometry is not None and is_one_data_set(run.geometry) else None
    told = command_origin("mask", given.to_dict(), [path, geometry, *masks, *darks])
    write_mask(
        report.bad_pixels, out, sources=report.sources, layers=report.layers, geometry=whole, provenance=told
    )
    figures = {"frames": statistics.n_frames, "pixels": report.bad_pixels.size, **mask_figures(report)}
    figures |= {"rings": rings, "out": str(out)} | ({"plot": str(plot)} if plot is not None else {})
    return figures if whole is None or out.suffix == ".npy" else figures | {"in_a_geom": geom_lines(out)}


def geom_lines(mask: Path) -> str:
    """Return the lines of a CrystFEL geometry that read a mask file; see :func:`~peaknet_pipeline.runs.masks.write_mask`."""
    return f"mask0_file = {mask.name}; mask0_data = {MASK_FRAME}; mask0_goodbits = 0x0; mask0_badbits = 0xff"
