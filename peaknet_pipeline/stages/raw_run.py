"""What a raw run is, written down once."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.geometry.distance import knows_distance
from peaknet_pipeline.geometry.resolve import typical_value
from peaknet_pipeline.provenance import Recipe
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.shot_values import shot_doubts
from peaknet_pipeline.store.asset import INGEST, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import manifest_path
from peaknet_pipeline.store.run_files import RunContext, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import write_json
from peaknet_pipeline.types import RunInfo


def raw_run(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Manifest of a raw run: files, frames, stack shape, photon energy, geometry, mask, checksum; validated."""
    context = read_context(store, key, anew=True)
    output = manifest_path(store, key)
    with open_raw(context) as run:
        info, checks, missing = run.info, values_known(run), int(run.without_resolution.sum())
        doubts = [*run.doubts, *shot_doubts(run)]

    def build(recipe: Recipe) -> StageResult:
        manifest = _manifest(context, info)
        write_json(output, manifest)
        energy = typical_value(info.photon_energy_ev)
        figures: dict[str, Any] = {
            "frames": info.n_frames,
            "panels": info.stack_shape[0],
            "pixels": int(np.prod(info.stack_shape)),
            "megabytes": round(info.size_bytes / 1e6, 1),
            "photon_energy_ev": None if energy is None else round(energy, 2),
            "frames_without_resolution": missing,
            "checksum": info.checksum,
            "doubts": doubts,
        }
        as_read = Check("files_unchanged", True, "the files are those that were read")
        return StageResult(output, figures, checks=(*checks, as_read))

    linked = [path for path in info.files if path.resolve() not in {file.resolve() for file in context.files}]
    inputs = [*context.files, *linked, *context.settings_files]
    return make_stage("raw_run", parameters={}, inputs=inputs, build=build)


RAW_RUN_ASSET = Asset(
    raw_run,
    job=INGEST,
    output=manifest_path,
    kinds=("hdf5",),
    checks=("has_photon_energy", "has_camera_length", "files_unchanged"),
    blocking=("has_photon_energy", "has_camera_length"),
)


def values_known(run: Run) -> tuple[Check, ...]:
    """Check that some frames have a photon energy, and some a camera length: without them a run can't be indexed."""
    energy, geometry = run.photon_energy_ev, geometry_of(run)
    n_energies = int(np.isfinite(energy).sum())
    told = f"median {typical_value(energy):.1f} eV; " if n_energies else ""
    n_lengths = run.n_frames if run.clen_m is None else int(np.isfinite(run.clen_m).sum())
    return (
        Check(
            "has_photon_energy", n_energies > 0, f"{told}{n_energies} of {run.n_frames} frames have an energy"
        ),
        Check(
            "has_camera_length",
            knows_distance(geometry),
            f"{n_lengths if knows_distance(geometry) else 0} of {run.n_frames} frames have a camera length",
        ),
    )


def _manifest(context: RunContext, info: RunInfo) -> dict[str, Any]:
    values = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(info).items()}
    del values["photon_energy_ev"]
    energies = info.photon_energy_ev[np.isfinite(info.photon_energy_ev)]
    return {
        **values,
        "files": [str(path) for path in info.files],
        "key": str(context.key),
        "cell": str(context.experiment.cell or ""),
        "photon_energy_ev": {
            "median": typical_value(energies),
            "low": float(energies.min()) if energies.size else None,
            "high": float(energies.max()) if energies.size else None,
            "frames_without": len(info.photon_energy_ev) - energies.size,
        },
    }
