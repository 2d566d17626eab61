"""What a raw run is, written down once."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.provenance import Recipe
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import manifest_path
from peaknet_pipeline.store.run_files import RunContext, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import write_json
from peaknet_pipeline.types import RunInfo


def raw_run(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Manifest of a raw run: files, frames, stack shape, photon energy, geometry, mask, checksum; validated."""
    context = read_context(store, key)
    output = manifest_path(store, key)
    with open_raw(context) as run:
        info, doubts = run.info, list(run.doubts)

    def build(recipe: Recipe) -> StageResult:
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
            "doubts": doubts,
        }
        checks = (
            Check(
                "has_photon_energy", bool(np.isfinite(info.photon_energy_ev).all()), f"median {energy:.1f} eV"
            ),
        )
        return StageResult(output, figures, checks=checks)

    linked = [path for path in info.files if path.resolve() not in {file.resolve() for file in context.files}]
    inputs = [*context.files, *linked, *context.settings_files]
    return make_stage("raw_run", parameters={}, inputs=inputs, build=build)


def _manifest(context: RunContext, info: RunInfo) -> dict[str, Any]:
    values = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(info).items()}
    energies = np.asarray(values.pop("photon_energy_ev"))
    return {
        **values,
        "files": [str(path) for path in info.files],
        "key": str(context.key),
        "cell": str(context.experiment.cell or ""),
        "photon_energy_ev": {
            "median": float(np.median(energies)),
            "low": float(energies.min()),
            "high": float(energies.max()),
        },
    }
