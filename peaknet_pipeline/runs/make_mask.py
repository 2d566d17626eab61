"""The mask of a run from everything at hand: its own, drawn ones, bad pixels, darks, shadow, rings, edges, with provenance."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.maps import pixel_radius, resolution_map
from peaknet_pipeline.params import Parameters, declared, parameter
from peaknet_pipeline.runs.bad_pixels import BadPixelParams, BadPixelReport, find_bad_pixels
from peaknet_pipeline.runs.dark import find_dark_outliers
from peaknet_pipeline.runs.edges import chip_edge_pixels, edge_pixels, find_wide_pixels
from peaknet_pipeline.runs.masks import combine_masks, read_drawn_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.rings import Ring, RingParams, find_rings, ring_pixels
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.shadow import ShadowParams, estimate_shadow
from peaknet_pipeline.runs.statistics import Progress, compute_statistics
from peaknet_pipeline.types import BoolArray, Geometry, RunStatistics


@dataclass(frozen=True)
class MaskParams(Parameters):
    """What is masked beside the run's own mask and its bad pixels; everything is off unless asked for."""

    mask_files: tuple[str, ...] = parameter((), meaning="drawn masks to add (HDF5, CXI, NXmx or .npy)")
    invert_masks: bool = parameter(
        False, meaning="a mask that takes more than half of the pixels is inverted: 1 is good there"
    )
    dark_files: tuple[str, ...] = parameter(
        (), meaning="dark runs whose hot, silent and noisy pixels are added"
    )
    dark_n_sigma: float = parameter(
        8.0, meaning="a pixel of a dark run stands out by more than this", unit="σ", gt=0
    )
    shadow: bool = parameter(False, meaning="mask what lies in the shadow of the beamstop or anything else")
    shadow_level: float = parameter(
        0.5, meaning="shadow: darker than this part of what its ring shows", gt=0, le=1
    )
    edge_width: int = parameter(0, meaning="rows and columns masked at panel edges", unit="px", ge=0)
    chip_ss: int = parameter(
        0, meaning="slow-scan size of a chip, 0: chip borders are not masked", unit="px", ge=0
    )
    chip_fs: int = parameter(0, meaning="fast-scan size of a chip, 0: as slow scan", unit="px", ge=0)
    wide_pixels: bool = parameter(
        False, meaning="mask rows and columns of larger pixels, found by their counts"
    )
    exclude_ice: bool = declared(RingParams, "exclude_ice")
    exclude_found: bool = parameter(
        False, meaning="leave out the sharp rings (ice, salt) that the run's mean shows"
    )
    rings_angstrom: tuple[float, ...] = declared(RingParams, "rings_angstrom")
    ring_half_width: float = declared(RingParams, "half_width")
    ring_mode: str = parameter(
        "pixels",
        meaning="rings leave the pixels, or only the peaks on them are dropped",
        choices=("pixels", "peaks"),
    )

    def rings(self, found: tuple[Ring, ...] = ()) -> RingParams:
        """Return which rings are left out, those that were ``found`` among them if so wished."""
        salt = tuple(round(ring.d_angstrom, 4) for ring in found) if self.exclude_found else ()
        return RingParams(
            rings_angstrom=self.rings_angstrom + salt,
            exclude_ice=self.exclude_ice,
            half_width=self.ring_half_width,
        )


def make_mask(
    run: Run,
    statistics: RunStatistics | None = None,
    params: MaskParams | None = None,
    bad_pixel_params: BadPixelParams | None = None,
    *,
    progress: Progress | None = None,
) -> BadPixelReport:
    """Return a run's bad pixels from every source that the parameters ask for.

    The report's ``sources`` tell, in the order of joining, who removed how many pixels: geometry, the run's masks, hot,
    noisy, dead, the drawn masks, darks, shadow, edges, chips, wide pixels, rings. With default parameters this is
    :func:`~peaknet_pipeline.runs.bad_pixels.find_bad_pixels`.

    Raises
    ------
    RunError
        A drawn mask or dark run doesn't fit, or a part needs a geometry or photon energy that the run doesn't have.

    """
    params = params or MaskParams()
    if statistics is None:
        statistics = compute_statistics(run, max_frames=(bad_pixel_params or BadPixelParams()).max_frames)
    report = find_bad_pixels(run, statistics, bad_pixel_params, progress=progress)
    doubts: list[str] = []
    layers = _files(run, report.bad_pixels, params, doubts)
    layers |= _regions(run, statistics, report.bad_pixels, params)
    joint, sources = combine_masks({"found": report.bad_pixels, **layers})
    return dataclasses.replace(
        report,
        bad_pixels=joint,
        sources=(*report.sources, *sources[1:]),
        layers={**report.layers, **layers},
        doubts=(*run.doubts, *doubts),
    )


def left_out_rings(
    run: Run, statistics: RunStatistics, bad_pixels: BoolArray, params: MaskParams
) -> RingParams:
    """Return the rings that the parameters leave out in this run."""
    return params.rings(run_rings(run, statistics, bad_pixels) if params.exclude_found else ())


def run_rings(run: Run, statistics: RunStatistics, bad_pixels: BoolArray) -> tuple[Ring, ...]:
    """Return the sharp rings in a run's mean image, none where geometry or photon energy are unknown."""
    if run.geometry is None or run.geometry.photon_energy_ev is None:
        return ()
    inv_d = resolution_map(run.geometry, run.geometry.photon_energy_ev)
    return find_rings(statistics.mean, inv_d, bad_pixels)


def _files(run: Run, bad_pixels: BoolArray, params: MaskParams, doubts: list[str]) -> dict[str, BoolArray]:
    """Return the layers that stand in files of their own."""
    layers: dict[str, BoolArray] = {}
    for name in params.mask_files:
        layers[_free_name(Path(name).name, layers)] = read_drawn_mask(
            Path(name), run.geometry, invert=params.invert_masks, doubt=doubts.append
        )
    for name in params.dark_files:
        with open_run(name, run.geometry, more_roots=run.roots) as dark:
            statistics = compute_statistics(dark)
        if statistics.mean.shape != bad_pixels.shape:
            raise RunError(
                "the dark run is of another detector", where=name, expected=bad_pixels.shape,
                found=statistics.mean.shape,
            )  # fmt: skip
        found = find_dark_outliers(statistics, bad_pixels, n_sigma=params.dark_n_sigma)
        layers[_free_name(f"dark {Path(name).name}", layers)] = found
    return layers


def _free_name(name: str, layers: dict[str, BoolArray]) -> str:
    return name if name not in layers else f"{name} ({len(layers) + 1})"


def _regions(
    run: Run, statistics: RunStatistics, bad_pixels: BoolArray, params: MaskParams
) -> dict[str, BoolArray]:
    parts: dict[str, BoolArray] = {}
    if params.shadow:
        radius = pixel_radius(_geometry(run, "shadow"))
        unknown = bad_pixels | np.isnan(statistics.mean)
        parts["shadow"] = estimate_shadow(
            statistics.mean, radius, unknown, ShadowParams(level=params.shadow_level)
        )
    if params.edge_width:
        parts["edges"] = edge_pixels(_geometry(run, "edge_width"), params.edge_width)
    if params.chip_ss:
        chip = params.chip_ss, params.chip_fs or params.chip_ss
        parts["chips"] = chip_edge_pixels(run.stack_shape, chip)
    if params.wide_pixels:
        parts["wide pixels"] = find_wide_pixels(statistics.mean, bad_pixels)
    rings = left_out_rings(run, statistics, bad_pixels, params)
    if params.ring_mode == "pixels" and rings.any:
        parts["rings"] = _rings(run, rings)
    return parts


def _rings(run: Run, rings: RingParams) -> BoolArray:
    geometry = _geometry(run, "rings")
    if geometry.photon_energy_ev is None:
        raise RunError(
            "masking rings needs the photon energy", where=run.info.path, remedy="Name it in the geometry."
        )
    return ring_pixels(resolution_map(geometry, geometry.photon_energy_ev), rings)


def _geometry(run: Run, what: str) -> Geometry:
    if run.geometry is None:
        raise RunError(f"{what} needs a geometry", where=run.info.path, remedy="Open the run with its .geom.")
    return run.geometry
