"""Raw runs: what a run is, written down once, and its statistics and bad pixels."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.assemble import assemble
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.plots.images import plot_image, plot_mask
from peaknet_pipeline.runs.bad_pixels import RUN_LAYER, BadPixelParams, BadPixelReport
from peaknet_pipeline.runs.make_mask import MaskParams, left_out_rings, make_mask, run_rings
from peaknet_pipeline.runs.masks import add_mask, read_mask
from peaknet_pipeline.runs.rings import RingParams, ring_summary
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.provenance import Recipe
from peaknet_pipeline.store.run_files import RunContext, open_raw, read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import write_json
from peaknet_pipeline.types import BoolArray, Geometry, RunInfo, RunStatistics

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


@dataclass(frozen=True)
class StatisticsParams(BadPixelParams, MaskParams):
    """How bad pixels are found, and what else is masked: the sections ``bad_pixels`` and ``mask``."""


def run_statistics(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Mean, standard deviation and maximum of a run's frames, and its mask: what every finder and the network leave out."""
    context = read_context(store, key)
    given = overrides or {}
    params = context.experiment.parameters("bad_pixels", BadPixelParams, BadPixelParams.own(given))
    mask_params = mask_parameters(context, MaskParams.own(given))
    output = statistics_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        with open_raw(context) as run, progress_bar(f"statistics {key}") as progress:
            statistics = compute_statistics(run, progress=progress)
            report = make_mask(run, statistics, mask_params, params)
            rings = run_rings(run, statistics, report.layers[RUN_LAYER])
            left_out = left_out_rings(run, statistics, report.layers[RUN_LAYER], mask_params)
            geometry = geometry_of(run)
        write_statistics(output, statistics, report, left_out)
        figures = mask_figures(report) | {
            "frames": statistics.n_frames,
            "mean_intensity": _mean_of_good(statistics, report.bad_pixels),
            "rings": ring_summary(rings),
        }
        plots = _plots(geometry, statistics, report, key)
        return StageResult(output, figures, plots=plots, checks=(_mask_fraction(report),))

    files = [Path(name) for name in (*mask_params.mask_files, *mask_params.dark_files)]
    inputs = [manifest_path(store, key), context.path, *context.settings_files, *files]
    parameters = {"bad_pixels": params.to_dict(), "mask": mask_params.to_dict()}
    return make_stage("run_statistics", parameters=parameters, inputs=inputs, build=build)


def mask_parameters(context: RunContext, overrides: Mapping[str, Any] | None = None) -> MaskParams:
    """Return what an experiment masks; its mask and dark files are found in its own folder and may not lie elsewhere.

    Raises
    ------
    ParameterError
        A name leads out of the experiment's folder.
    RunError
        There is no such file.

    """
    params = context.experiment.parameters("mask", MaskParams, overrides)
    return dataclasses.replace(
        params,
        mask_files=tuple(str(_own_file(context, name)) for name in params.mask_files),
        dark_files=tuple(str(_own_file(context, name)) for name in params.dark_files),
    )


def _own_file(context: RunContext, name: str) -> Path:
    path = context.store.confine(Path(name), context.experiment.folder)
    if not path.is_file():
        raise RunError(
            "no such mask or dark run", where=path, remedy="Mend the section mask of experiment.yaml."
        )
    return path


def mask_figures(report: BadPixelReport) -> dict[str, Any]:
    """Return how many pixels a mask takes, and how many each source took that no earlier one had."""
    return {
        "bad_pixels": int(report.bad_pixels.sum()),
        "bad_fraction": float(report.bad_pixels.mean()),
        "hot": int(report.hot.sum()),
        "noisy": int(report.noisy.sum()),
        "dead": int(report.dead.sum()),
        **{f"new_from_{_plain_name(s.name)}": s.n_new for s in report.sources},
    }


def _plain_name(name: str) -> str:
    return name.strip("/").replace("/", "_").replace(" ", "_")


def _mean_of_good(statistics: RunStatistics, bad: BoolArray) -> float:
    return float(np.nanmean(statistics.mean[~bad])) if not bad.all() else 0.0


def _mask_fraction(report: BadPixelReport) -> Check:
    fraction = float(report.bad_pixels.mean())
    text = f"{fraction:.2%} of the pixels are bad; at most {MAX_BAD_FRACTION:.0%}"
    return Check("mask_fraction", fraction <= MAX_BAD_FRACTION, text)


def _plots(
    geometry: Geometry, statistics: RunStatistics, report: BadPixelReport, key: str
) -> dict[str, bytes]:
    masked = np.where(report.bad_pixels, np.nan, statistics.maximum).astype(np.float32)
    virtual = np.asarray(assemble(masked, geometry), dtype=np.float32)
    return {
        "virtual_powder": plot_image(virtual, title=f"{key}: maximum over {statistics.n_frames} frames"),
        "bad_pixel_mask": plot_report(report, geometry, title=f"{key}: bad pixels"),
    }


def plot_report(report: BadPixelReport, geometry: Geometry, *, title: str) -> bytes:
    """Draw a mask on the assembled detector, each pixel in the colour of the first layer that calls it bad."""
    first = np.zeros(report.bad_pixels.shape, dtype=np.float32)
    for k, layer in reversed(list(enumerate(report.layers.values(), start=1))):
        first[layer] = k
    image = np.asarray(assemble(first, geometry), dtype=np.float32)
    return plot_mask(image, title=title, reasons=tuple(report.layers))


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
        "files": [str(path) for path in info.files],
        "key": str(context.key),
        "cell": str(context.experiment.cell or ""),
        "photon_energy_ev": {
            "median": float(np.median(energies)),
            "low": float(energies.min()),
            "high": float(energies.max()),
        },
    }


def write_statistics(
    path: Path, statistics: RunStatistics, report: BadPixelReport, rings: RingParams
) -> None:
    """Write a run's statistics and its mask, with who removed how many pixels and which, as HDF5."""
    with new_hdf5(path) as file:
        for name in ("mean", "std", "maximum"):
            file.create_dataset(name, data=getattr(statistics, name), compression="gzip", compression_opts=1)
        file.attrs["n_frames"] = statistics.n_frames
        file.attrs["left_out_rings"] = json.dumps(rings.to_dict())
        add_mask(file, report.bad_pixels, sources=report.sources, layers=report.layers)


def read_left_out_rings(store: Store, key: str) -> RingParams:
    """Return the rings on which a run's peaks don't count."""
    with h5py.File(statistics_path(store, key)) as file:
        return RingParams.from_mapping(json.loads(file.attrs.get("left_out_rings", "{}")))
