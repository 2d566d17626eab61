"""NeXus NXmx files (EIGER, JUNGFRAU): detector geometry from the metadata of a master file.

NeXus's McStas frame and CrystFEL's laboratory frame are the same: +z along the beam, +y up, right-handed.
Positions follow the chain of transformations where the file has one; else beam centre and distance place a
single flat panel whose fast axis points to −x and slow axis to −y (NXmx's recommended orientation).
"""

from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.geometry.crystfel_write import format_geometry
from peaknet_pipeline.hdf5.attributes import attribute_text
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.runs.nexus_layout import find_detector
from peaknet_pipeline.runs.nexus_limits import with_file_limits
from peaknet_pipeline.runs.nexus_modules import read_modules
from peaknet_pipeline.runs.nexus_values import few_numbers
from peaknet_pipeline.runs.units import metres_of, metres_per, unknown_unit
from peaknet_pipeline.types import Geometry, Panel

_PIXEL_UNITS = ("", "pixel", "pixels", "px")


def read_nexus_geometry(
    files: LinkedFiles, frame_shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Geometry | None:
    """Return the detector that an NXmx file describes; None, with a doubt that says why, where it places none.

    Parameters
    ----------
    files : LinkedFiles
        Open master file.
    frame_shape : (ss, fs) or (modules, ss, fs)
        Shape of a frame in the file.
    dtype : dtype
        Of the frames; extreme values of an integer type mark invalid pixels (:mod:`.nexus_limits`).

    Raises
    ------
    RunError
        A field has an unknown unit, is not a few numbers, or transformations contradict each other.

    """
    detector = find_detector(files)
    if detector is None:
        return None
    panels = read_modules(files, detector, frame_shape)
    if not panels:
        flat = _flat_panel(files, detector, frame_shape)
        panels = () if flat is None else (flat,)
    if not panels:
        return None
    geometry = with_file_limits(files, Geometry(panels=panels, peak_list_path=None), dtype)
    return replace(geometry, text=format_geometry(geometry))


def doubt_fewer_frames(files: LinkedFiles, n_frames: int) -> None:
    """Doubt that a run is whole where its master planned more frames (``nimages`` for each of ``ntrigger``)."""
    detector = find_detector(files)
    planned = [1.0, 1.0]
    for i, name in enumerate(("nimages", "ntrigger")):
        dataset = files.find(f"{detector}/detectorSpecific/{name}") if detector is not None else None
        if isinstance(dataset, h5py.Dataset) and dataset.size == 1 and dataset.dtype.kind in "uif":
            planned[i] = float(few_numbers(dataset)[0])
    if np.prod(planned) > n_frames:
        files.doubt(f"The master planned {np.prod(planned):.0f} frames; {n_frames} are there.")


def _flat_panel(files: LinkedFiles, detector: str, frame_shape: tuple[int, ...]) -> Panel | None:
    """Place one panel by beam centre and distance; None, with a doubt, where the file leaves one of them out."""
    faults: list[str] = []
    size_x = _length_m(files, detector, ("x_pixel_size",), faults)
    distance = _length_m(files, detector, ("detector_distance", "distance"), faults)
    size_y = size_x
    if files.has_link(f"{detector}/y_pixel_size"):
        size_y = _length_m(files, detector, ("y_pixel_size",), faults)
    centre = [
        _centre(files, f"{detector}/beam_center_{axis}", size, faults)
        for axis, size in (("x", size_x), ("y", size_y))
    ]
    if faults:
        files.doubt(f"The NXmx metadata place no detector: {'; '.join(faults)}. Give a CrystFEL geometry.")
        return None
    _doubt_centre_and_pixels(files, detector, centre, (size_x, size_y))
    return _placed(frame_shape, centre, (size_x, size_y), distance)


def _placed(
    frame_shape: tuple[int, ...], centre: list[float], pixel_m: tuple[float, float], distance_m: float
) -> Panel:
    """Return the panel, in units of its pixels along fs; along ss they may be longer."""
    height, width = frame_shape[-2:]
    ratio = pixel_m[1] / pixel_m[0]
    return Panel(
        name="p0",
        min_fs=0,
        max_fs=width - 1,
        min_ss=0,
        max_ss=height - 1,
        corner_x=centre[0],
        corner_y=centre[1] * ratio,
        fs_vec=(-1.0, 0.0, 0.0),
        ss_vec=(0.0, -ratio, 0.0),
        pixel_size_m=pixel_m[0],
        clen_m=distance_m,
    )


def _doubt_centre_and_pixels(
    files: LinkedFiles, detector: str, centre: list[float], pixel_m: tuple[float, float]
) -> None:
    if not any(centre):
        files.doubt(
            f"{detector}/beam_center_x and beam_center_y are both 0, which often means that nobody set them: "
            "the corner of the detector is taken as the beam's place."
        )
    if not np.isclose(pixel_m[0], pixel_m[1], rtol=1e-6):
        files.doubt(
            f"{detector}: x_pixel_size {1e6 * pixel_m[0]:g} µm and y_pixel_size {1e6 * pixel_m[1]:g} µm "
            "differ: pixels are taken as oblong."
        )


def _length_m(files: LinkedFiles, detector: str, names: tuple[str, ...], faults: list[str]) -> float:
    """Return the first positive length of several fields, in metres; else note what is wrong with each."""
    wrong = []
    for name in names:
        dataset = files.find(f"{detector}/{name}")
        if not isinstance(dataset, h5py.Dataset):
            wrong.append((name, "is missing"))
            continue
        value = _one_number(files, dataset)
        if np.isfinite(value) and value > 0:
            return value * metres_of(files, dataset)
        wrong.append((name, f"is {value:g}, not a positive length"))
    present = [fault for fault in wrong if fault[1] != "is missing"]
    faults.extend(f"{detector}/{name} {what}" for name, what in present or wrong[:1])
    return float("nan")


def _centre(files: LinkedFiles, path: str, pixel_m: float, faults: list[str]) -> float:
    """Return a coordinate of the beam centre in pixels, from pixels or a length."""
    dataset = files.find(path)
    value = _one_number(files, dataset) if isinstance(dataset, h5py.Dataset) else None
    if value is None or not np.isfinite(value):
        faults.append(f"{path} is {'missing' if value is None else 'not set (NaN)'}")
        return float("nan")
    unit = attribute_text(dataset, "units").strip().lower()
    if unit in _PIXEL_UNITS:
        return value
    scale = metres_per(unit)
    if scale is None:
        raise unknown_unit(files, dataset, unit, "pixel, or a unit of length")
    return value * scale / pixel_m


def _one_number(files: LinkedFiles, dataset: Any) -> float:
    """Return a field's number; of several that differ, the median, with a doubt."""
    values = few_numbers(dataset)
    if np.ptp(values) > 0:
        files.doubt(f"{dataset.name} holds {values.size} different values: their median is taken.")
    return float(np.median(values))
