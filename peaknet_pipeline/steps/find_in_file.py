"""The ``peaknet find`` command: peaks of one file by any finder, written as wanted."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.infer.params import OutputParams
from peaknet_pipeline.provenance import command_origin
from peaknet_pipeline.runs.masks import read_drawn_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.rings import RingParams, drop_ring_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.find_in_run import find_in_run
from peaknet_pipeline.steps.finders import FinderKind, finder_kind
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.steps.noise_budget import within_budget
from peaknet_pipeline.steps.peak_record import INVERTED, MASKS
from peaknet_pipeline.steps.peak_tables import nothing_found, peak_metadata
from peaknet_pipeline.steps.progress import Progress, progress_bar
from peaknet_pipeline.steps.write_peaks import write_found
from peaknet_pipeline.types import BoolArray


def find_command(
    path: Path,
    *,
    geometry: Path | None,
    finder: str,
    model: Path | None,
    settings: Sequence[str],
    masks: Sequence[Path],
    exclude_ice: bool = False,
    out: Path,
    cxi: Path | None,
    segmentation: Path | None = None,
    output: OutputParams | None = None,
    roots: Sequence[Path] = (),
    invert_masks: bool = False,
) -> dict[str, Any]:
    """Find peaks in one file and write them; see ``peaknet find``."""
    kind = finder_kind(finder)
    if not kind.has_network and (model is not None or segmentation is not None):
        raise ParameterError("--model and --segmentation go with --finder peaknet only")
    output = output or OutputParams()
    known = read_geometry(geometry) if geometry is not None else None
    with ExitStack() as stack:
        run = stack.enter_context(open_run(path, known, more_roots=roots, invert_masks=invert_masks))
        progress = stack.enter_context(progress_bar(f"{finder} {path.name}"))
        doubts = list(run.doubts)
        bad = run.bad_pixels
        for mask in masks:
            bad = bad | read_drawn_mask(mask, run.geometry, invert=invert_masks, doubt=doubts.append)
        inputs, opened = [path, geometry, *masks], {INVERTED: "true"} if invert_masks else {}
        if not kind.has_network:
            found = _find_classically(run, kind, settings, bad, inputs, opened, progress)
        else:
            unfinished = out.with_name(f".{out.name}.stream")
            found = stack.enter_context(
                _infer(run, model, settings, bad, inputs, opened, output, unfinished, segmentation, progress)
            )
        peaks = drop_ring_peaks(found.peaks, RingParams(exclude_ice=exclude_ice))
        metadata = {**found.metadata, MASKS: json.dumps([str(mask.absolute()) for mask in masks])}
        written = write_found(peaks, run, params=output, out=out, cxi=cxi, metadata=metadata, bad_pixels=bad)
        n_frames = run.n_frames
    told: dict[str, Any] = {
        "frames": n_frames,
        "peaks": len(written.peaks),
        f"frames_with_{output.min_peaks}_peaks": len(hit_frames(written.peaks, min_peaks=output.min_peaks)),
        "finder": finder,
        "bad_pixels": int(bad.sum()),
        "out": str(out),
    }
    if not len(written.peaks):
        doubts.append(nothing_found(n_frames, float(bad.mean())))
    if doubts:
        told["doubts"] = doubts
    files = {"cxi": cxi, "segmentation": segmentation}
    told |= found.figures | written.figures
    return told | {name: str(file) for name, file in files.items() if file is not None}


@dataclass(frozen=True)
class Search:
    """Peaks of one file, what their table says about their origin, and figures."""

    peaks: PeakTable
    metadata: dict[str, str]
    figures: dict[str, Any]


def _find_classically(
    run: Run,
    kind: FinderKind,
    settings: Sequence[str],
    bad: BoolArray,
    inputs: Sequence[Path | None],
    opened: dict[str, str],
    progress: Progress,
) -> Search:
    params = kind.parameters.from_settings(settings)
    settled = within_budget(run, params, bad)
    find = kind.make(settled, geometry_of(run), bad, None, False)
    peaks, seconds = find_in_run(run, find, progress=progress)
    metadata = peak_metadata(run, finder=kind.name, parameters=settled.to_dict())
    metadata |= command_origin("find", params.to_dict() | opened, inputs) | opened
    figures = {"frames_per_second": round(run.n_frames / max(seconds, 1e-9), 2)}
    chosen = settled.to_dict() if settled is not params else {}
    return Search(peaks, metadata, figures | {n: chosen[n] for n in ("threshold", "min_snr") if n in chosen})


@contextmanager
def _infer(
    run: Run,
    model: Path | None,
    settings: Sequence[str],
    bad: BoolArray,
    inputs: Sequence[Path | None],
    opened: dict[str, str],
    output: OutputParams,
    folder: Path,
    segmentation: Path | None,
    progress: Progress,
) -> Iterator[Search]:
    """Give what the network finds; until the block has ended well, it is kept for the next try."""
    from peaknet_pipeline.steps import find_with_network as network

    loaded = network.load_model(model)
    chosen = [f"{name}={value}" for name, value in output.to_dict().items()]
    params = InferenceParams.from_settings([*settings, *chosen])
    metadata = peak_metadata(run, finder="peaknet", parameters=params.to_dict())
    inputs = [*inputs, network.card_of(model)]
    metadata |= (
        command_origin("find", params.to_dict() | opened, inputs, **network.network_name(loaded)) | opened
    )
    job = network.inference_in_run(
        run, loaded, params, bad_pixels=bad, metadata=metadata, folder=folder, segmentation=segmentation
    )
    with job.streamed(progress) as (peaks, report):
        figures = network.stream_figures(report, run.n_frames)
        yield Search(peaks, metadata, figures)
