"""Simple integration: a disc's sum above the mean of a ring around it, with its standard error."""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import IndexingError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, is_usable
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.schemas import ReflectionTable
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, FrameArray, IntArray


@dataclass(frozen=True)
class IntegrateParams(Parameters):
    """The disc and the ring, and what must be left of them."""

    peak_radius: float = parameter(
        2.5, meaning="radius of the disc that is summed", unit="px", gt=0.0, le=20.0
    )
    inner_radius: float = parameter(
        3.5, meaning="inner radius of the background ring", unit="px", gt=0.0, le=30.0
    )
    outer_radius: float = parameter(
        6.0, meaning="outer radius of the background ring", unit="px", gt=0.0, le=40.0
    )
    min_good_fraction: float = parameter(
        0.75, meaning="share of the disc's pixels that must be good", gt=0.0, le=1.0
    )
    min_ring_pixels: int = parameter(10, meaning="good ring pixels that must be left", ge=3)
    clip: float = parameter(
        4.0, meaning="ring pixels further from the mean are dropped once", unit="σ", gt=0.0
    )


def integrate_reflections(
    frames: FrameArray,
    reflections: ReflectionTable,
    *,
    bad_pixels: BoolArray,
    first_frame: int = 0,
    adu_per_photon: npt.ArrayLike = 0.0,
    params: IntegrateParams | None = None,
    usable: UsableValues = ALL_VALUES,
) -> ReflectionTable:
    """Return the reflections with ``intensity``, ``sigma``, ``peak`` and ``background``, adu, filled in.

    Parameters
    ----------
    frames : (n, n_panels, ss, fs), any dtype
        Values that aren't finite, or not ``usable``, count as bad.
    reflections : ReflectionTable
        All in frames ``first_frame … first_frame + n - 1``.
    bad_pixels : (n_panels, ss, fs)
    adu_per_photon : array_like of float, () or (n_panels,)
        Adds the counting noise of the signal itself; at 0 sigma tells the background's noise only, which is too little for
        every reflection that stands out of it.

    Returns
    -------
    ReflectionTable
        A copy. NaN where too little of disc or ring is on good pixels. Ring pixels in the disc of another predicted
        reflection don't count. sigma² = n·v·(1 + n/m) [+ gain·intensity] with n disc pixels, m ring pixels of variance v;
        a disc that lost pixels is scaled to its full area.

    Raises
    ------
    IndexingError
        A reflection lies outside the frames given, or the radii aren't in order.

    """
    params = params or IntegrateParams()
    if not params.peak_radius <= params.inner_radius < params.outer_radius:
        raise IndexingError("radii out of order", expected="peak ≤ inner < outer", found=params.to_dict())
    gain = np.ascontiguousarray(
        np.broadcast_to(np.asarray(adu_per_photon, dtype=np.float64), frames.shape[1])
    )
    local = reflections["frame"].to_numpy(dtype=np.int64) - first_frame
    if local.size and (local.min() < 0 or local.max() >= len(frames)):
        raise IndexingError(
            "reflection outside the frames given",
            expected=f"frames {first_frame} … {first_frame + len(frames) - 1}",
            found=f"{local.min() + first_frame} … {local.max() + first_frame}",
        )
    columns = [
        reflections[n].to_numpy(dtype=t) for n, t in (("panel", np.int64), ("ss", float), ("fs", float))
    ]
    measured = np.full((4, local.size), np.nan, dtype=np.float32)
    for frame in np.unique(local):
        rows = np.flatnonzero(local == frame)
        panel, ss, fs = (c[rows] for c in columns)
        measured[:, rows] = _integrate(
            np.ascontiguousarray(frames[frame]),
            bad_pixels,
            panel,
            ss,
            fs,
            (params.peak_radius, params.inner_radius, params.outer_radius),
            (params.min_good_fraction, float(params.min_ring_pixels), params.clip),
            gain,
            usable.of(frames.dtype.name),
        )
    names = ("intensity", "sigma", "peak", "background")
    return reflections.assign(**dict(zip(names, measured, strict=True)))


@numba.njit(cache=True, nogil=True)
def _integrate(
    frame: FrameArray,
    bad: BoolArray,
    panel: IntArray,
    ss: Float64Array,
    fs: Float64Array,
    radii: tuple[float, float, float],
    limits: tuple[float, float, float],
    gain: Float64Array,
    usable: UsableValues,
) -> Float32Array:
    taken = _discs(frame.shape, panel, ss, fs, radii[0])
    measured = np.full((4, panel.size), np.nan, dtype=np.float32)
    ring = np.empty(int(4 * (radii[2] + 1) ** 2) + 8)
    for i in range(panel.size):
        n, n_all, total, m, highest = _collect(
            frame[panel[i]], bad[panel[i]], taken[panel[i]], ss[i], fs[i], radii, ring, usable
        )
        if n < limits[0] * n_all or m < limits[1]:
            continue
        mean, variance, kept = _clipped(ring[:m], limits[2])
        if kept < limits[1]:
            continue
        value = (total - n * mean) * n_all / n
        noise = n_all**2 / n * variance * (1.0 + n / kept) + gain[panel[i]] * max(value, 0.0)
        measured[0, i], measured[1, i] = value, np.sqrt(noise)
        measured[2, i], measured[3, i] = highest, mean
    return measured


@numba.njit(cache=True, nogil=True)
def _discs(
    shape: tuple[int, int, int], panel: IntArray, ss: Float64Array, fs: Float64Array, radius: float
) -> BoolArray:
    taken = np.zeros(shape, dtype=np.bool_)
    reach = int(np.ceil(radius))
    for i in range(panel.size):
        for y in range(max(0, int(ss[i]) - reach), min(shape[1], int(ss[i]) + reach + 2)):
            for x in range(max(0, int(fs[i]) - reach), min(shape[2], int(fs[i]) + reach + 2)):
                if (y - ss[i]) ** 2 + (x - fs[i]) ** 2 <= radius**2:
                    taken[panel[i], y, x] = True
    return taken


@numba.njit(cache=True, nogil=True)
def _collect(
    image: FrameArray,
    bad: BoolArray,
    taken: BoolArray,
    ss: float,
    fs: float,
    radii: tuple[float, float, float],
    ring: Float64Array,
    usable: UsableValues,
) -> tuple[int, int, float, int, float]:
    """Sum the disc and gather the ring: good disc pixels, all disc pixels, their sum, ring pixels, the disc's highest."""
    n, n_all, m, total, highest = 0, 0, 0, 0.0, -np.inf
    reach = int(np.ceil(radii[2]))
    cy, cx = int(np.floor(ss + 0.5)), int(np.floor(fs + 0.5))
    for y in range(cy - reach, cy + reach + 1):
        for x in range(cx - reach, cx + reach + 1):
            squared = (y - ss) ** 2 + (x - fs) ** 2
            disc = squared <= radii[0] ** 2
            n_all += disc
            if y < 0 or x < 0 or y >= image.shape[0] or x >= image.shape[1] or bad[y, x]:
                continue
            value = float(image[y, x])
            if not is_usable(np.float32(value), usable):
                continue
            if disc:
                n += 1
                total += value
                highest = max(highest, value)
            elif radii[1] ** 2 <= squared <= radii[2] ** 2 and not taken[y, x]:
                ring[m] = value
                m += 1
    return n, n_all, total, m, highest


@numba.njit(cache=True, nogil=True)
def _clipped(values: Float64Array, clip: float) -> tuple[float, float, int]:
    """Return mean, variance and number of the values within ``clip`` standard deviations of their mean."""
    mean, spread = values.mean(), values.std()
    kept, total, squares = 0, 0.0, 0.0
    for value in values:
        if abs(value - mean) <= clip * spread + 1e-9:
            kept += 1
            total += value - mean
            squares += (value - mean) ** 2
    shift = total / max(kept, 1)
    variance = max(squares / max(kept, 1) - shift**2, 0.0) * kept / max(kept - 1, 1)
    return mean + shift, variance, kept
