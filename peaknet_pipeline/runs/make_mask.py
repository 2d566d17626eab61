"""The mask of a run from everything at hand: its own, a drawn one, bad pixels, shadow, rings, edges, with provenance."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.maps import pixel_radius, resolution_map
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.runs.bad_pixels import BadPixelParams, BadPixelReport, find_bad_pixels
from peaknet_pipeline.runs.edges import chip_edge_pixels, edge_pixels, find_wide_pixels
from peaknet_pipeline.runs.masks import combine_masks, read_mask
from peaknet_pipeline.runs.rings import RingParams, ring_pixels
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.shadow import estimate_shadow
from peaknet_pipeline.runs.statistics import Progress, compute_statistics
from peaknet_pipeline.types import BoolArray, Geometry, RunStatistics


@dataclass(frozen=True)
class MaskParams(Parameters):
    """What is masked beside bad pixels; everything is off unless asked for."""

    mask_file: str = parameter("", meaning="a drawn mask (HDF5, CXI or .npy) to add")
    shadow: bool = parameter(False, meaning="mask what lies in the shadow of the beamstop or anything else")
    edge_width: int = parameter(0, meaning="rows and columns masked at panel edges", unit="px", ge=0)
    chip_ss: int = parameter(
        0, meaning="slow-scan size of a chip, 0: chip borders are not masked", unit="px", ge=0
    )
    chip_fs: int = parameter(0, meaning="fast-scan size of a chip, 0: as slow scan", unit="px", ge=0)
    wide_pixels: bool = parameter(
        False, meaning="mask rows and columns of larger pixels, found by their counts"
    )
    exclude_ice: bool = parameter(False, meaning="mask the rings of hexagonal ice")
    rings_angstrom: tuple[float, ...] = parameter((), meaning="resolution of other rings to mask", unit="Å")
    ring_half_width: float = parameter(0.004, meaning="half width of a masked ring in 1/d", unit="Å⁻¹", gt=0)


def make_mask(
    run: Run,
    statistics: RunStatistics | None = None,
    params: MaskParams | None = None,
    bad_pixel_params: BadPixelParams | None = None,
    *,
    progress: Progress | None = None,
) -> BadPixelReport:
    """Return a run's bad pixels from every source that the parameters ask for.

    The report's ``sources`` tell, in the order of joining, who removed how many pixels: geometry, the run's masks, the
    drawn mask, hot, noisy, dead, shadow, edges, chips, wide pixels, rings. With default parameters this is
    :func:`~peaknet_pipeline.runs.bad_pixels.find_bad_pixels`.

    Raises
    ------
    RunError
        The drawn mask doesn't fit, or a part needs a geometry or photon energy that the run doesn't have.

    """
    params = params or MaskParams()
    if statistics is None:
        statistics = compute_statistics(run, max_frames=(bad_pixel_params or BadPixelParams()).max_frames)
    report = find_bad_pixels(run, statistics, bad_pixel_params, progress=progress)
    parts = {"found": report.bad_pixels, **_regions(run, statistics, report.bad_pixels, params)}
    joint, sources = combine_masks(parts)
    return dataclasses.replace(report, bad_pixels=joint, sources=(*report.sources, *sources[1:]))


def _regions(
    run: Run, statistics: RunStatistics, bad_pixels: BoolArray, params: MaskParams
) -> dict[str, BoolArray]:
    parts: dict[str, BoolArray] = {}
    if params.mask_file:
        path = Path(params.mask_file)
        parts[path.name] = read_mask(path, run.geometry)[0]
    if params.shadow:
        radius = pixel_radius(_geometry(run, "shadow"))
        parts["shadow"] = estimate_shadow(statistics.mean, radius, bad_pixels | np.isnan(statistics.mean))
    if params.edge_width:
        parts["edges"] = edge_pixels(_geometry(run, "edge_width"), params.edge_width)
    if params.chip_ss:
        chip = params.chip_ss, params.chip_fs or params.chip_ss
        parts["chips"] = chip_edge_pixels(run.stack_shape, chip)
    if params.wide_pixels:
        parts["wide pixels"] = find_wide_pixels(statistics.mean, bad_pixels)
    if params.exclude_ice or params.rings_angstrom:
        parts["rings"] = _rings(run, params)
    return parts


def _rings(run: Run, params: MaskParams) -> BoolArray:
    geometry = _geometry(run, "rings")
    if geometry.photon_energy_ev is None:
        raise RunError(
            "masking rings needs the photon energy", where=run.info.path, remedy="Name it in the geometry."
        )
    ring_params = RingParams(
        rings_angstrom=params.rings_angstrom,
        exclude_ice=params.exclude_ice,
        half_width=params.ring_half_width,
    )
    return ring_pixels(resolution_map(geometry, geometry.photon_energy_ev), ring_params)


def _geometry(run: Run, what: str) -> Geometry:
    if run.geometry is None:
        raise RunError(f"{what} needs a geometry", where=run.info.path, remedy="Open the run with its .geom.")
    return run.geometry
