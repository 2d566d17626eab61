"""The ``peaknet mask`` command."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.runs.bad_pixels import RUN_LAYER, BadPixelParams
from peaknet_pipeline.runs.make_mask import MaskParams, make_mask, run_rings
from peaknet_pipeline.runs.masks import write_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.rings import ring_summary
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline.stages.ingest import StatisticsParams, mask_figures, plot_report
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.provenance import command_origin


def mask_command(
    path: Path,
    *,
    geometry: Path | None,
    masks: Sequence[Path] = (),
    darks: Sequence[Path] = (),
    settings: Sequence[str] = (),
    out: Path,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Make the mask of one file and write it, with its layers; see ``peaknet mask``."""
    given = StatisticsParams.from_settings(settings).to_dict()
    params, bad_pixel_params = (
        MaskParams(**MaskParams.own(given)),
        BadPixelParams(**BadPixelParams.own(given)),
    )
    params = replace(
        params,
        mask_files=(*params.mask_files, *map(str, masks)),
        dark_files=(*params.dark_files, *map(str, darks)),
    )
    known = read_geometry(geometry) if geometry is not None else None
    with open_run(path, known) as run, progress_bar(f"mask {path.name}") as progress:
        statistics = compute_statistics(run, max_frames=bad_pixel_params.max_frames, progress=progress)
        report = make_mask(run, statistics, params, bad_pixel_params)
        rings = ring_summary(run_rings(run, statistics, report.layers[RUN_LAYER]))
        if plot is not None:
            write_file(plot, plot_report(report, geometry_of(run), title=path.name))
    told = command_origin("mask", given, [path, geometry, *masks, *darks])
    write_mask(report.bad_pixels, out, sources=report.sources, layers=report.layers, provenance=told)
    figures = {"frames": statistics.n_frames, "pixels": report.bad_pixels.size, **mask_figures(report)}
    return figures | {"rings": rings, "out": str(out)} | ({"plot": str(plot)} if plot is not None else {})
