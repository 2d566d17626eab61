"""Which pixel values an NXmx file trusts: from ``underload_value`` up, saturated from ``saturation_value`` on.

NXmx: pixels below ``underload_value`` hold no data, those above ``saturation_value`` are not to be trusted. DECTRIS names the
largest count that its count-rate correction gives ``countrate_correction_count_cutoff``: pixels there are saturated too.
Writers mark pixels without any value by the extreme values of an integer type: the largest, and of a signed type also the
least.
"""

from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.geometry.usable import ALL_VALUES
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.runs.nexus_layout import find_detector
from peaknet_pipeline.types import Geometry

SATURATION = ("saturation_value", "countrate_correction_count_cutoff")
APPLIED = "countrate_correction_applied"


def with_file_limits(files: LinkedFiles, geometry: Geometry, dtype: np.dtype[Any]) -> Geometry:
    """Return the geometry with the limits of values that the file and its data type give, where it has none itself.

    Parameters
    ----------
    files : LinkedFiles
        Open NXmx master file.
    geometry : Geometry
        Its own flags and ``max_adu`` count before the file's.
    dtype : dtype
        Of the frames.

    """
    detector = find_detector(files)
    least, most = (None, None) if detector is None else _limits(files, detector)
    if any(panel.max_adu is not None for panel in geometry.panels):
        most = None
    panels = tuple(panel if most is None else replace(panel, max_adu=most) for panel in geometry.panels)
    low, equal = geometry.flag_less_than, geometry.flag_equal
    return replace(
        geometry,
        panels=panels,
        flag_less_than=_highest(least, _least_marked(dtype)) if low is None else low,
        flag_equal=float(np.iinfo(dtype).max) if equal is None and dtype.kind in "ui" else equal,
    )


def _limits(files: LinkedFiles, detector: str) -> tuple[float | None, float | None]:
    """Return the least valid value and the least value that saturates; None where the file tells none."""
    low = _number(files, detector, "underload_value")
    given = [_number(files, detector, name) for name in SATURATION]
    if _number(files, detector, APPLIED) == 0:
        given[1] = None
    high = min((value for value in given if value is not None and value > 0), default=None)
    if low is not None and high is not None and low >= high:
        files.doubt(
            f"{detector}: underload_value {low:g} is not below the saturation value {high:g}: both are left out."
        )
        return None, None
    return low, high


def _number(files: LinkedFiles, detector: str, name: str) -> float | None:
    """Return a finite field of the detector, or of DECTRIS's group within; None, with a doubt where it is no number."""
    for path in (f"{detector}/{name}", f"{detector}/detectorSpecific/{name}"):
        field = files.find(path)
        if field is None:
            continue
        try:
            number = isinstance(field, h5py.Dataset) and field.size == 1 and field.dtype.kind in "uifb"
            value = float(read_whole(field).ravel()[0]) if number else np.nan
        except DAMAGE:
            value = np.nan
        if np.isfinite(value):
            return value
        files.doubt(f"{path} is not a finite number: it is left out.")
    return None


def _least_marked(dtype: np.dtype[Any]) -> float | None:
    """Return the first value above the mark of a signed type, as a single-precision number; None: no such mark."""
    usable = ALL_VALUES.of(dtype.name)
    return None if usable.is_all else usable.low


def _highest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)
