"""NeXus NXmx files (EIGER, JUNGFRAU): detector geometry from the metadata of a master file.

NeXus's McStas frame and CrystFEL's laboratory frame are the same: +z along the beam, +y up, right-handed.
Positions follow the chain of transformations where the file has one; else beam centre and distance place a
single flat panel whose fast axis points to −x and slow axis to −y (NXmx's recommended orientation).
"""

import posixpath
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel_write import format_geometry
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.runs.formats import attribute_text
from peaknet_pipeline.types import Float64Array, Geometry, Panel

DETECTOR = "/entry/instrument/detector"
MAX_CHAIN = 32
MAX_VALUES = 1024
_LENGTHS_M = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "cm": 1e-2, "": 1.0, "metre": 1.0, "meter": 1.0}


def read_nexus_geometry(files: LinkedFiles, frame_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Geometry:
    """Return the detector that an NXmx file describes.

    Parameters
    ----------
    files : LinkedFiles
        Open master file.
    frame_shape : (ss, fs) or (modules, ss, fs)
        Shape of a frame in the file.
    dtype : dtype
        Of the frames; the largest value of an unsigned type marks invalid pixels.

    Raises
    ------
    RunError
        Neither modules nor beam centre, distance and pixel size are there.

    """
    panels = _module_panels(files, len(frame_shape)) or (_flat_panel(files, frame_shape),)
    largest = float(np.iinfo(dtype).max) if dtype.kind == "u" else None
    geometry = Geometry(panels=panels, flag_equal=largest, peak_list_path=None)
    return replace(geometry, text=format_geometry(geometry))


def _flat_panel(files: LinkedFiles, frame_shape: tuple[int, ...]) -> Panel:
    values = {
        "pixel_size_m": _length_m(files, "x_pixel_size"),
        "clen_m": _length_m(files, "detector_distance", "distance"),
    }
    centre_x, centre_y = (_number(files, f"beam_center_{axis}") for axis in "xy")
    missing = [name for name, value in values.items() if value is None]
    missing += [f"beam_center_{axis}" for axis, v in (("x", centre_x), ("y", centre_y)) if v is None]
    if missing or centre_x is None or centre_y is None:
        found = f"no {', '.join(missing)}"
        remedy = "Give a CrystFEL geometry file."
        raise RunError("NXmx metadata lack the geometry", where=files.path, found=found, remedy=remedy)
    height, width = frame_shape[-2:]
    return Panel(
        name="p0",
        min_fs=0,
        max_fs=width - 1,
        min_ss=0,
        max_ss=height - 1,
        corner_x=centre_x,
        corner_y=centre_y,
        fs_vec=(-1.0, 0.0, 0.0),
        ss_vec=(0.0, -1.0, 0.0),
        pixel_size_m=values["pixel_size_m"] or 0.0,
        clen_m=values["clen_m"] or 0.0,
    )


def _module_panels(files: LinkedFiles, n_dims: int) -> tuple[Panel, ...]:
    """Return one panel per NXdetector_module with a complete description, none where one is incomplete."""
    detector = files.find(DETECTOR)
    if not isinstance(detector, h5py.Group):
        return ()
    groups = [g for _, g in files.members(detector) if attribute_text(g, "NX_class") == "NXdetector_module"]
    panels = [_module_panel(files, group, number, n_dims) for number, group in enumerate(groups)]
    return tuple(panel for panel in panels if panel is not None) if all(panels) else ()


def _module_panel(files: LinkedFiles, group: Any, number: int, n_dims: int) -> Panel | None:
    names = ("data_origin", "data_size", "fast_pixel_direction", "slow_pixel_direction")
    fields = [files.find(posixpath.join(group.name, name)) for name in names]
    if any(not isinstance(field, h5py.Dataset) for field in fields):
        return None
    fast, slow = fields[2:]
    origin, size = (_values(field).astype(int) for field in fields[:2])
    chain = _chain(files, attribute_text(fast, "depends_on"), fast)
    if chain is None or min(origin.size, size.size) < 2:
        return None
    pixel_size_m = _value_m(fast)
    fs_vec, ss_vec = (
        chain[:3, :3] @ (_vector(axis) * _value_m(axis)) / pixel_size_m for axis in (fast, slow)
    )
    corner = (chain @ np.append(_offset_m(fast), 1.0))[:3] / pixel_size_m
    (ss, fs), (height, width) = origin[-2:], size[-2:]
    return Panel(
        name=f"m{number}",
        min_fs=int(fs),
        max_fs=int(fs + width - 1),
        min_ss=int(ss),
        max_ss=int(ss + height - 1),
        corner_x=float(corner[0]),
        corner_y=float(corner[1]),
        fs_vec=_triple(fs_vec),
        ss_vec=_triple(ss_vec),
        pixel_size_m=pixel_size_m,
        clen_m=float(corner[2] * pixel_size_m),
        stack_index=tuple(int(i) for i in origin[:-2]) if n_dims == 3 and origin.size == 3 else (),
    )


def _triple(vector: Float64Array) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])


def _chain(files: LinkedFiles, depends_on: str, owner: Any) -> Float64Array | None:
    """Return the product of the transformations from ``depends_on`` down to the laboratory, 4×4, metres."""
    matrix: Float64Array = np.eye(4)
    base = owner.parent.name
    for _ in range(MAX_CHAIN):
        if depends_on in ("", "."):
            return matrix
        path = posixpath.normpath(posixpath.join(base, depends_on))
        axis = files.find(path)
        if not isinstance(axis, h5py.Dataset):
            return None
        matrix = _transformation(axis) @ matrix
        depends_on, base = attribute_text(axis, "depends_on"), axis.parent.name
    raise RunError("transformations go in a circle", where=files.path, found=depends_on)


def _transformation(axis: Any) -> Float64Array:
    vector, matrix = _vector(axis), np.eye(4)
    if attribute_text(axis, "transformation_type") == "rotation":
        angle = float(_values(axis)[0])
        if not attribute_text(axis, "units").startswith("rad"):
            angle = np.deg2rad(angle)
        x, y, z = vector
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    else:
        matrix[:3, 3] = vector * _value_m(axis)
    matrix[:3, 3] += _offset_m(axis)
    return matrix


def _vector(axis: Any) -> Float64Array:
    vector = np.asarray(axis.attrs.get("vector", (0.0, 0.0, 0.0)), dtype=np.float64).ravel()
    length = np.linalg.norm(vector)
    if vector.size != 3 or not length > 0:
        raise RunError(f"{axis.name} has no direction", where=axis.file.filename, found=vector.tolist())
    unit: Float64Array = vector / length
    return unit


def _offset_m(axis: Any) -> Float64Array:
    offset = np.asarray(axis.attrs.get("offset", (0.0, 0.0, 0.0)), dtype=np.float64).ravel()
    units = attribute_text(axis, "offset_units") or attribute_text(axis, "units")
    scaled: Float64Array = offset * _LENGTHS_M.get(units, 1.0)
    return scaled if offset.size == 3 else np.zeros(3)


def _value_m(axis: Any) -> float:
    return float(_values(axis)[0]) * _unit_m(axis)


def _values(dataset: Any) -> Float64Array:
    """Return the few numbers of a data set."""
    if dataset.dtype.kind not in "uif" or not 0 < (dataset.size or 0) <= MAX_VALUES:
        found = f"{dataset.dtype} {dataset.shape}"
        raise RunError(f"{dataset.name} is not a few numbers", where=dataset.file.filename, found=found)
    return np.asarray(read_whole(dataset), dtype=np.float64).ravel()


def _unit_m(dataset: Any) -> float:
    unit = attribute_text(dataset, "units")
    if unit not in _LENGTHS_M:
        raise RunError(f"{dataset.name} has an unknown unit", where=dataset.file.filename, found=unit)
    return _LENGTHS_M[unit]


def _length_m(files: LinkedFiles, *names: str) -> float | None:
    for name in names:
        dataset = files.find(f"{DETECTOR}/{name}")
        value = _number(files, name)
        if value is not None and value > 0:
            return value * _unit_m(dataset)
    return None


def _number(files: LinkedFiles, name: str) -> float | None:
    dataset = files.find(f"{DETECTOR}/{name}")
    if not isinstance(dataset, h5py.Dataset) or dataset.size != 1:
        return None
    try:
        value = float(read_whole(dataset).ravel()[0])
    except DAMAGE:
        return None
    return value if np.isfinite(value) else None
