"""Raw runs: what a run is, written down once, and its statistics and bad pixels."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.assemble import assemble
from peaknet_pipeline.plots.images import plot_image, plot_mask
from peaknet_pipeline.runs.bad_pixels import BadPixelParams, BadPixelReport, find_bad_pixels
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline.stages.context import RunContext, open_raw, read_context
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.progress import progress_bar
from peaknet_pipeline.stages.provenance import Recipe
from peaknet_pipeline.stages.result import Check, StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import write_json
from peaknet_pipeline.types import BoolArray, RunInfo, RunStatistics

MAX_BAD_FRACTION = 0.5
"""Share of bad pixels from which on a detector counts as unusable."""


def manifest_path(store: Store, key: str) -> Path:
    """Return where a run's manifest lies."""
    return store.file("raw_run", key, ".json")


def statistics_path(store: Store, key: str) -> Path:
    """Return where a run's statistics and bad pixels lie."""
    return store.file("run_statistics", key, ".h5")


def raw_run(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Manifest of a raw run: files, frames, stack shape, photon energy, geometry, mask, checksum; validated."""
    context = read_context(store, key)
    output = manifest_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        with open_raw(context) as run:
            info = run.info
        manifest = _manifest(context, info)
        write_json(output, manifest)
        energy = float(np.median(info.photon_energy_ev))
        figures: dict[str, Any] = {
            "frames": info.n_frames,
            "panels": info.stack_shape[0],
            "pixels": int(np.prod(info.stack_shape)),
            "megabytes": round(info.size_bytes / 1e6, 1),
            "photon_energy_ev": round(energy, 2),
            "checksum": info.checksum,
        }
        checks = (
            Check(
                "has_photon_energy", bool(np.isfinite(info.photon_energy_ev).all()), f"median {energy:.1f} eV"
            ),
        )
        return StageResult(output, figures, checks=checks)

    return make_stage("raw_run", parameters={}, inputs=[context.path, *context.settings_files], build=build)


def run_statistics(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Mean, standard deviation and maximum of a run's frames, and the bad pixels that they give away."""
    context = read_context(store, key)
    params = context.experiment.parameters("bad_pixels", BadPixelParams, overrides)
    output = statistics_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        with open_raw(context) as run, progress_bar(f"statistics {key}") as progress:
            statistics = compute_statistics(run, progress=progress)
            report = find_bad_pixels(run, statistics, params)
        bad = report.bad_pixels
        write_statistics(output, statistics, report)
        fraction = float(bad.mean())
        figures = {
            "frames": statistics.n_frames,
            "bad_pixels": int(bad.sum()),
            "bad_fraction": fraction,
            "hot": int(report.hot.sum()),
            "noisy": int(report.noisy.sum()),
            "dead": int(report.dead.sum()),
            "mean_intensity": float(statistics.mean[~bad].mean()) if not bad.all() else 0.0,
            **{f"new_from_{s.name.strip('/').replace('/', '_')}": s.n_new for s in report.sources},
        }
        passed = fraction <= MAX_BAD_FRACTION
        check = Check(
            "mask_fraction", passed, f"{fraction:.2%} of the pixels are bad; at most {MAX_BAD_FRACTION:.0%}"
        )
        masked = np.where(bad, np.nan, statistics.maximum).astype(np.float32)
        virtual = np.asarray(assemble(masked, context.geometry), dtype=np.float32)
        mask = np.asarray(assemble(bad.astype(np.float32), context.geometry), dtype=np.float32)
        plots = {
            "virtual_powder": plot_image(virtual, title=f"{key}: maximum over {statistics.n_frames} frames"),
            "bad_pixel_mask": plot_mask(mask, title=f"{key}: bad pixels"),
        }
        return StageResult(output, figures, plots=plots, checks=(check,))

    inputs = [manifest_path(store, key), context.path, *context.settings_files]
    return make_stage("run_statistics", parameters=params.to_dict(), inputs=inputs, build=build)


def read_bad_pixels(store: Store, key: str) -> BoolArray:
    """Return a run's bad pixels, (n_panels, ss, fs), as its statistics found them."""
    path = statistics_path(store, key)
    if not path.is_file():
        raise RunError("no statistics", where=path, remedy="Materialize run_statistics for this run first.")
    return read_mask(path)[0]


def _manifest(context: RunContext, info: RunInfo) -> dict[str, Any]:
    values = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(info).items()}
    energies = np.asarray(values.pop("photon_energy_ev"))
    return {
        **values,
        "key": str(context.key),
        "cell": str(context.experiment.cell),
        "photon_energy_ev": {
            "median": float(np.median(energies)),
            "low": float(energies.min()),
            "high": float(energies.max()),
        },
    }


def write_statistics(path: Path, statistics: RunStatistics, report: BadPixelReport) -> None:
    """Write a run's statistics and its mask, with who removed how many pixels, as HDF5."""
    with replace_atomically(path) as temporary:
        with h5py.File(temporary, "w") as file:
            for name in ("mean", "std", "maximum"):
                file.create_dataset(
                    name, data=getattr(statistics, name), compression="gzip", compression_opts=1
                )
            file.attrs["n_frames"] = statistics.n_frames
        with h5py.File(temporary, "a") as file:
            data = file.create_dataset(
                "bad_pixels", data=report.bad_pixels.astype(np.uint8), compression="gzip"
            )
            data.attrs["sources"] = json.dumps([dataclasses.asdict(source) for source in report.sources])
