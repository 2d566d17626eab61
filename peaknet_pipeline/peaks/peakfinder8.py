"""peakfinder8 (Barty et al. 2014, J. Appl. Cryst. 47, 1118) on detector stacks, in one pass per frame."""

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pandas as pd

from peaknet_pipeline.devices import DeviceParams, choose_device, is_cpu
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, usable_values
from peaknet_pipeline.params import Parameters, declared, parameter
from peaknet_pipeline.peaks.finder import ClassicalFinder, FindPeaks
from peaknet_pipeline.peaks.peakfinder8_frame import (
    Workspace,
    as_kernel_input,
    check_frames,
    find_seeds,
    grow_peaks,
    peak_table,
    split_tiles,
)
from peaknet_pipeline.peaks.rings import RingPlan, Rules, plan_rings
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import MAX_CXI_PEAKS, BoolArray, Float32Array, Float64Array, FrameArray, Geometry

VARIABLE = ("min_pix", "max_pix", "local_bg_radius")
"""Parameters that neither the statistics nor the seeds depend on."""

EXACT_SAMPLE = 64
"""Pixels per ring that guide the exact statistics; the peaks don't depend on it."""


@dataclass(frozen=True)
class Peakfinder8Params(Parameters):
    """What an expert tunes; the names and defaults are CrystFEL's."""

    threshold: float = parameter(
        800.0, meaning="floor of the pixel limit, on the raw value", unit="adu", gt=0
    )
    min_snr: float = parameter(
        5.0, meaning="limit above the ring's mean, and lowest peak SNR", unit="σ", ge=0
    )
    min_pix: int = parameter(2, meaning="fewest pixels of a peak", unit="px", ge=1)
    max_pix: int = parameter(200, meaning="most pixels of a peak", unit="px", ge=1)
    local_bg_radius: int = parameter(
        3, meaning="half the radius of the local background's disc", unit="px", ge=1
    )
    min_res: float = parameter(0.0, meaning="pixels lie farther from the beam; 0 = no limit", unit="px", ge=0)
    max_res: float = parameter(0.0, meaning="pixels lie nearer to the beam; 0 = no limit", unit="px", ge=0)
    max_peaks: int = parameter(
        MAX_CXI_PEAKS, meaning="most peaks of a frame, the first in raster order", ge=1
    )
    statistics: str = parameter(
        "exact", meaning="ring statistics from all pixels or from a sample", choices=("exact", "sampled")
    )
    sample_size: int = parameter(100, meaning="pixels per ring when sampled", unit="px", ge=2)


@dataclass(frozen=True)
class PlacedPeakfinder8Params(Peakfinder8Params):
    """peakfinder8's rules, where they run, and how much noise they may find.

    The CPU is the default, unlike the network's: the compiled finder keeps up with a reader, gives the same numbers on every
    machine, and leaves the GPU to the network.
    """

    device: str = declared(DeviceParams, "device", default="cpu")
    false_peaks_per_mpix: float = parameter(
        0.0,
        meaning="false peaks expected in a megapixel, by which threshold and min_snr are chosen on the run's own noise; "
        "0 takes them as given",
        ge=0,
        le=1000,
    )


class Peakfinder8:
    """peakfinder8 prepared for one detector, mask and parameter set; reuse it for every frame of a run.

    Parameters
    ----------
    radius : (n_panels, ss, fs), px
        peakfinder8's distance of each pixel from the beam (`geometry.pixel_radius`).
    bad_pixels : (n_panels, ss, fs)
        True where a pixel must not be used.
    params : Peakfinder8Params
    usable : UsableValues
        Other values, like NaN and infinities, make a pixel unusable in that frame (`geometry.usable`).
    plan : RingPlan, optional
        Another finder's plan for the same map, mask, resolution limits and statistics; made anew by default.

    """

    def __init__(
        self,
        radius: Float32Array,
        bad_pixels: BoolArray,
        params: Peakfinder8Params,
        *,
        usable: UsableValues = ALL_VALUES,
        plan: RingPlan | None = None,
    ) -> None:
        self.params = params
        self._usable = usable
        self.plan = plan or plan_rings(
            radius,
            bad_pixels,
            min_radius=params.min_res,
            max_radius=params.max_res,
            sample_size=EXACT_SAMPLE if params.statistics == "exact" else params.sample_size,
        )
        self._workspaces: list[Workspace] = []

    def find(self, frames: FrameArray, *, first_frame: int = 0, n_threads: int | None = None) -> PeakTable:
        """Find the peaks of each frame; see `find_peaks`."""
        return self.find_variants(frames, [self.params], first_frame=first_frame, n_threads=n_threads)[0]

    def find_variants(
        self,
        frames: FrameArray,
        variants: Sequence[Peakfinder8Params],
        *,
        first_frame: int = 0,
        n_threads: int | None = None,
    ) -> list[PeakTable]:
        """Find the peaks by several parameter sets at the cost of little more than one.

        The variants may differ from the finder's own parameters in `VARIABLE` only, which leaves each frame's
        statistics and seeds as they are. One table per variant.

        Raises
        ------
        RunError
            The frames do not fit the radius map or are not numbers.
        ParameterError
            A variant differs in another parameter.

        """
        check_frames(frames, self.plan.shape)
        usable = self._usable.of(frames.dtype.name)
        rules = [self._rules_of(variant, usable) for variant in variants]
        n_threads = n_threads or os.cpu_count() or 1
        if n_threads == 1 or not len(frames):
            rows = [self._find_one(rules, frame) for frame in frames]
        elif len(frames) == 1:
            with ThreadPoolExecutor(n_threads) as pool:
                rows = [self._find_one(rules, frames[0], split_tiles(self.plan, n_threads), pool)]
        else:
            with ThreadPoolExecutor(min(n_threads, len(frames))) as pool:
                rows = list(pool.map(partial(self._find_one, rules), frames))
        return [peak_table([frame_rows[k] for frame_rows in rows], first_frame) for k in range(len(rules))]

    def _rules_of(self, params: Peakfinder8Params, usable: UsableValues) -> Rules:
        changed = {n for n, v in params.to_dict().items() if v != getattr(self.params, n)} - set(VARIABLE)
        if changed:
            raise ParameterError(
                "a variant must leave the statistics as they are", expected=f"changes in {VARIABLE} only",
                found=sorted(changed),
            )  # fmt: skip
        return Rules(
            usable, params.min_snr, params.threshold, params.min_pix, params.max_pix, params.local_bg_radius
        )

    def _find_one(
        self,
        rules: Sequence[Rules],
        frame: FrameArray,
        parts: Sequence[tuple[int, int]] = (),
        pool: Executor | None = None,
    ) -> list[Float64Array]:
        """Return, for each of the rules, the rows (n_peaks, 9) of one frame."""
        flat = as_kernel_input(frame).ravel()
        try:
            space = self._workspaces.pop()
        except IndexError:
            space = Workspace.allocate(self.plan, self.params.max_peaks)
        try:
            sampled = self.params.statistics == "sampled"
            seeds = find_seeds(flat, self.plan, rules[0], space, sampled=sampled, parts=parts, pool=pool)
            return [grow_peaks(flat, self.plan, rule, space, seeds) for rule in rules]
        finally:
            self._workspaces.append(space)


def find_peaks(
    frames: FrameArray,
    *,
    radius: Float32Array,
    bad_pixels: BoolArray,
    params: Peakfinder8Params,
    first_frame: int = 0,
    n_threads: int | None = None,
    usable: UsableValues = ALL_VALUES,
) -> PeakTable:
    """Find Bragg peaks with peakfinder8.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), adu
        Any integer or floating dtype, read in place.
    radius : (n_panels, ss, fs), px
        peakfinder8's distance of each pixel from the beam (`geometry.pixel_radius`).
    bad_pixels : (n_panels, ss, fs) or (n, n_panels, ss, fs)
        True where a pixel must not be used, for all frames or for each.
    params : Peakfinder8Params
    first_frame : int
        Number of the first frame in the run.
    n_threads : int, optional
        Frames worked on at once; all processors by default.
    usable : UsableValues
        Other values, like NaN and infinities, make a pixel unusable in that frame (`geometry.usable`).

    Returns
    -------
    PeakTable
        Sorted by frame, then panel and raster order; ``inv_d`` and ``score`` are NaN.

    Raises
    ------
    RunError
        The frames do not fit the radius map or are not numbers.
    ParameterError
        Radius map and mask differ in shape.

    """
    if bad_pixels.ndim != 4:
        finder = Peakfinder8(radius, bad_pixels, params, usable=usable)
        return finder.find(frames, first_frame=first_frame, n_threads=n_threads)
    if len(bad_pixels) != len(frames):
        raise ParameterError("not one mask per frame", expected=len(frames), found=len(bad_pixels))
    tables = [
        Peakfinder8(radius, bad, params, usable=usable).find(frames[i : i + 1], first_frame=first_frame + i)
        for i, bad in enumerate(bad_pixels)
    ]
    return pd.concat(tables, ignore_index=True) if tables else empty_table(PEAKS)


def _prepare(params: PlacedPeakfinder8Params, geometry: Geometry, bad_pixels: BoolArray) -> FindPeaks:
    if params.false_peaks_per_mpix > 0:
        raise ParameterError(
            "a noise budget needs the frames of a run", where="false_peaks_per_mpix", found=params.false_peaks_per_mpix,
            remedy="Find it with `peaknet find` on a run of this detector, and give threshold and min_snr here.",
        )  # fmt: skip
    rules, radius, usable = Peakfinder8Params.part_of(params), pixel_radius(geometry), usable_values(geometry)
    if not is_cpu(params.device):
        from peaknet_pipeline.peaks.peakfinder8_kernels import device_peakfinder8

        device = choose_device(params.device)
        return device_peakfinder8(radius, bad_pixels, rules, device=device, usable=usable).find_table
    finder = Peakfinder8(radius, bad_pixels, rules, usable=usable)
    return lambda frames, first: finder.find(frames, first_frame=first)


PEAKFINDER8 = ClassicalFinder(
    "peakfinder8", "Cheetah's and CrystFEL's", "finder", PlacedPeakfinder8Params, _prepare
)
