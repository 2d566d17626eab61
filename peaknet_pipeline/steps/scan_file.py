"""The ``peaknet scan`` command on a file: the peakfinder8 setting that indexes most of a sample of its frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.scan import ScanStageParams
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.rings import RingParams
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.steps.scan_finder import best_figures, choose_frames, scan_frames, scan_table


def scan_command(
    path: Path, *, geometry: Path, cell: Path, settings: Sequence[str], roots: Sequence[Path] = ()
) -> dict[str, Any]:
    """Try a grid of settings on a sample of a file's frames; see ``peaknet scan``.

    Raises
    ------
    RunError, GeometryError, CellError, ParameterError
        One of the inputs is unusable.

    """
    params, target = ScanStageParams.from_settings(settings), read_cell(cell)
    base = Peakfinder8Params()
    with (
        open_run(path, read_geometry(geometry), more_roots=roots) as run,
        progress_bar(f"scan {path.name}", unit="setting") as progress,
    ):
        chosen = choose_frames(run, run.bad_pixels, params, base)
        scan = scan_frames(
            run, chosen, target, params, base=base, index=IndexParams(), bad_pixels=run.bad_pixels,
            rings=RingParams(), progress=progress,
        )  # fmt: skip
    table = scan_table(scan, len(chosen))
    return best_figures(table, scan, in_use=base)
