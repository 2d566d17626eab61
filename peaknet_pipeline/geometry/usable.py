"""Which pixel values are measurements: one rule for every finder, the statistics, the labels and the live stream.

A geometry's flags, as in CrystFEL, make pixels bad in single frames: ``flag_lessthan`` and ``flag_morethan`` values beyond
the limit, ``flag_equal`` values that round to it. The least value of a signed integer type marks pixels without data in any
file. A value from ``max_adu`` on is saturated but stays usable: peaks are found there, and labels leave it out.

Values are compared in single precision, which is what the finders, like CrystFEL, compute in. That turns each rule into an
interval with exact ends, so that compiled loops, numpy and torch decide alike without rounding anything themselves.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.types import BoolArray, Float32Array, Geometry

LARGEST = float(np.finfo(np.float32).max)
SIGNED = ("int8", "int16", "int32", "int64")


class UsableValues(NamedTuple):
    """The usable values of pixels: from ``low`` to ``high`` without those from ``gap_low`` to ``gap_high``, all inclusive.

    The four are single-precision numbers; ``low`` and ``high`` are finite, so that NaN and infinities are never usable. A
    gap whose ends are crossed is empty. Compiled loops take it as it is.
    """

    low: float = -LARGEST
    high: float = LARGEST
    gap_low: float = np.inf
    gap_high: float = -np.inf

    def of(self, dtype: str) -> "UsableValues":
        """Return the usable values in frames of this data type, by name: a signed type's least value is no data."""
        if dtype not in SIGNED:
            return self
        return self._replace(low=max(self.low, _single_at_least(float(np.iinfo(dtype).min) + 1.0)))

    @property
    def is_all(self) -> bool:
        """Whether every finite value is usable."""
        return self == ALL_VALUES


ALL_VALUES = UsableValues()

Flags = tuple[float | None, float | None, float | None]
"""A geometry's ``flag_less_than``, ``flag_more_than`` and ``flag_equal``."""


def flags_of(geometry: Geometry) -> Flags:
    """Return a geometry's three flags."""
    return geometry.flag_less_than, geometry.flag_more_than, geometry.flag_equal


def with_flags(geometry: Geometry, flags: Flags) -> Geometry:
    """Return the geometry with other flags."""
    low, high, equal = flags
    return replace(geometry, flag_less_than=low, flag_more_than=high, flag_equal=equal)


def usable_values(geometry: Geometry | None) -> UsableValues:
    """Return the values that a geometry's flags allow; all without a geometry."""
    if geometry is None:
        return ALL_VALUES
    return value_range(*flags_of(geometry))


def value_range(
    low: float | None = None, high: float | None = None, equal: float | None = None
) -> UsableValues:
    """Return the values from ``low`` to ``high``, inclusive, that do not round to ``equal``; None: no such rule."""
    gap = (np.inf, -np.inf) if equal is None else _rounds_to(float(np.rint(equal)))
    first = -LARGEST if low is None else _single_at_least(low)
    last = LARGEST if high is None else -_single_at_least(-high)
    return UsableValues(first, last, *gap)


@numba.njit(inline="always")
def is_usable(value: Any, usable: Any) -> Any:
    """Tell whether one value is usable, inside compiled loops."""
    return usable.low <= value <= usable.high and not usable.gap_low <= value <= usable.gap_high


def are_usable(values: Any, usable: UsableValues) -> Any:
    """Return which values are usable; ``values`` is a single-precision numpy array or torch tensor of any shape."""
    inside = (values >= usable.low) & (values <= usable.high)
    if usable.gap_low <= usable.gap_high:
        inside = inside & ~((values >= usable.gap_low) & (values <= usable.gap_high))
    return inside


def flag_unusable(frames: npt.NDArray[Any], usable: UsableValues) -> BoolArray | None:
    """Return the pixels of ``frames`` whose value is finite and not usable, same shape; None where all may be used.

    NaN and infinities are bad to every finder anyway, and are not flagged.
    """
    usable = usable.of(frames.dtype.name)
    if usable.is_all:
        return None
    flagged = np.empty(frames.shape, dtype=np.bool_)
    _flag(_as_rows(frames).reshape(-1), usable, flagged.reshape(-1))
    return flagged


@numba.njit(cache=True, nogil=True)
def _flag(values: npt.NDArray[Any], usable: UsableValues, flagged: BoolArray) -> None:
    for i in range(values.size):
        value = np.float32(values[i])
        flagged[i] = np.isfinite(value) and not is_usable(value, usable)


def usable_maximum(frames: npt.NDArray[Any], usable: UsableValues) -> Float32Array:
    """Return each pixel's highest usable value over frames (n, …), shape (…); NaN where there is none."""
    highest = np.full(frames.shape[1:], np.nan, dtype=np.float32)
    _raise(_as_rows(frames), usable.of(frames.dtype.name), highest.reshape(-1))
    return highest


@numba.njit(cache=True, nogil=True)
def _raise(frames: npt.NDArray[Any], usable: UsableValues, highest: Float32Array) -> None:
    for n in range(frames.shape[0]):
        for i in range(frames.shape[1]):
            value = np.float32(frames[n, i])
            if is_usable(value, usable) and not value <= highest[i]:
                highest[i] = value


def _as_rows(frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return frames as rows of pixels, in a type that compiled loops take; not a copy where they are so."""
    native = np.dtype(np.float32) if frames.dtype == np.float16 else frames.dtype.newbyteorder("=")
    return np.ascontiguousarray(frames, dtype=native).reshape(len(frames), -1)


def _single_at_least(value: float) -> float:
    """Return the least finite single-precision number that is not below ``value``."""
    single = np.float32(min(max(value, -LARGEST), LARGEST))
    if float(single) < value:
        single = np.nextafter(single, np.float32(LARGEST))
    return float(single)


def _rounds_to(whole: float) -> tuple[float, float]:
    """Return the first and last single-precision number that rounds, half to even, to a whole number."""
    target = np.float32(whole)
    ends = []
    for half in (-0.5, 0.5):
        end = np.float32(float(target) + half)
        ends.append(float(end if np.rint(end) == target else np.nextafter(end, target)))
    return ends[0], ends[1]
