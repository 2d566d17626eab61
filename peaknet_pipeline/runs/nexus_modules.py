"""The modules of an NXmx detector: where each lies in the frame, and in the laboratory.

NXmx wants ``data_origin`` and ``data_size`` in the order of the frame's dimensions, slow before fast. DECTRIS's own
masters, and others after them, write fast before slow: the order is settled once for all modules, by what fits.
"""

import posixpath
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.attributes import attribute_text, read_attribute
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.runs.nexus_values import direction, few_numbers
from peaknet_pipeline.runs.units import metres_of, metres_per, radians_per, unknown_unit
from peaknet_pipeline.types import Float64Array, Panel

MAX_CHAIN = 32
_FIELDS = ("data_origin", "data_size", "fast_pixel_direction", "slow_pixel_direction")
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Module:
    """A module as the file writes it.

    Attributes
    ----------
    origin, size : (n,) int
        First index and number of pixels along the frame's dimensions, in the file's order.
    corner_m, fs_m, ss_m : (3,) float64
        Corner of the first pixel and the steps to its neighbours in the laboratory, metres.

    """

    origin: Ints
    size: Ints
    corner_m: Float64Array
    fs_m: Float64Array
    ss_m: Float64Array

    def reversed(self) -> "Module":
        """Return the module with origin and size in the other order."""
        return Module(self.origin[::-1], self.size[::-1], self.corner_m, self.fs_m, self.ss_m)


def read_modules(files: LinkedFiles, detector: str, frame_shape: tuple[int, ...]) -> tuple[Panel, ...]:
    """Return one panel for each NXdetector_module; none, with a doubt, where one isn't described completely.

    Raises
    ------
    RunError
        A unit is unknown, or transformations are damaged or go in a circle.

    """
    members = files.members(files.find(detector))
    groups = [group for _, group in members if attribute_text(group, "NX_class") == "NXdetector_module"]
    modules = []
    for group in groups:
        module = _read_module(files, group)
        if module is None:
            return ()
        modules.append(module)
    ordered = slow_first(modules, frame_shape)
    if ordered is None:
        files.doubt(
            f"data_origin and data_size of {detector}'s modules fit the frame in both orders: they are read as slow, "
            "fast. Compare the assembled image with the detector."
        )
        ordered = modules
    return tuple(_panel(module, number, len(frame_shape)) for number, module in enumerate(ordered))


def _read_module(files: LinkedFiles, group: Any) -> Module | None:
    fields = {name: files.find(posixpath.join(group.name, name)) for name in _FIELDS}
    missing = [name for name, field in fields.items() if not isinstance(field, h5py.Dataset)]
    if missing:
        files.doubt(f"{group.name} lacks {', '.join(missing)}: beam centre and distance count instead.")
        return None
    origin, size = (few_numbers(fields[name]).astype(np.int64) for name in _FIELDS[:2])
    fast, slow = (fields[name] for name in _FIELDS[2:])
    chain = _chain(files, attribute_text(fast, "depends_on"), fast)
    if chain is None:
        return None
    if origin.size != size.size or size.size < 2 or (origin < 0).any() or (size < 1).any():
        found = f"data_origin {origin.tolist()}, data_size {size.tolist()}"
        raise RunError(f"{group.name} covers no pixels", where=files.path, found=found)
    corner = (chain @ np.append(_offset_m(files, fast), 1.0))[:3]
    fs_m, ss_m = (chain[:3, :3] @ (direction(axis) * _metres(files, axis)) for axis in (fast, slow))
    if not np.isfinite([*corner, *fs_m, *ss_m]).all() or not corner[2] > 0:
        where = [round(float(x), 6) for x in corner]
        files.doubt(
            f"{group.name} is placed at {where} m, not behind the sample: beam centre and distance count."
        )
        return None
    return Module(origin, size, corner, fs_m, ss_m)


def slow_first(modules: list[Module], frame_shape: tuple[int, ...]) -> list[Module] | None:
    """Return the modules with the slow dimension first: as written where that fits, else the other way round.

    Where both orders fit the frame and say different things, the modules' places in the laboratory decide; None
    where they don't.
    """
    turned = [module.reversed() for module in modules]
    if not _fit(turned, frame_shape):
        return modules
    if not _fit(modules, frame_shape):
        return turned
    if all(
        (m.origin == t.origin).all() and (m.size == t.size).all()
        for m, t in zip(modules, turned, strict=True)
    ):
        return modules
    as_written, other = _mismatch_m(modules), _mismatch_m(turned)
    if min(as_written, other) > 0.5 * max(as_written, other) or as_written == other:
        return None
    return modules if as_written < other else turned


def _fit(modules: list[Module], frame_shape: tuple[int, ...]) -> bool:
    """Tell whether every module lies inside the frame; dimensions that a module leaves out come first."""
    shape = np.array(frame_shape)
    return all(
        m.size.size <= shape.size and (m.origin + m.size <= shape[-m.size.size :]).all() for m in modules
    )


def _mismatch_m(modules: list[Module]) -> float:
    """Return how far modules lie, at the median, from where one grid of pixels through the first would have them."""
    first = modules[0]
    far = [0.0]
    for module in modules[1:]:
        ss, fs = (module.origin - first.origin)[-2:]
        far.append(
            float(np.linalg.norm(module.corner_m - first.corner_m - ss * first.ss_m - fs * first.fs_m))
        )
    return float(np.median(far[1:] or far))


def _panel(module: Module, number: int, n_dims: int) -> Panel:
    # Rounding far below what anyone can measure keeps whole pixels whole: peakfinder8 cuts positions to integers, and
    # 49.999999999999 for 50 would move a pixel to another ring.
    pixel_size_m = round(float(np.linalg.norm(module.fs_m)), 15)
    corner = np.round(module.corner_m / pixel_size_m, 9)
    fs_vec, ss_vec = (np.round(v / pixel_size_m, 12) for v in (module.fs_m, module.ss_m))
    (ss, fs), (height, width) = module.origin[-2:], module.size[-2:]
    stacked = n_dims == 3 and module.origin.size == 3
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
        clen_m=float(module.corner_m[2]),
        stack_index=tuple(int(i) for i in module.origin[:-2]) if stacked else (),
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
            files.doubt(
                f"{owner.name} depends on {path}, which is missing: beam centre and distance count instead."
            )
            return None
        if not np.isfinite(few_numbers(axis)).all():
            files.doubt(f"{path} is not set (NaN): beam centre and distance count instead.")
            return None
        matrix = _transformation(files, axis) @ matrix
        depends_on, base = attribute_text(axis, "depends_on"), axis.parent.name
    raise RunError("transformations go in a circle", where=files.path, found=depends_on)


def _transformation(files: LinkedFiles, axis: Any) -> Float64Array:
    matrix = np.eye(4)
    if attribute_text(axis, "transformation_type") == "rotation":
        angle = _radians(files, axis)
        x, y, z = direction(axis)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    else:
        metres = _metres(files, axis)
        matrix[:3, 3] = direction(axis) * metres if metres else 0.0
    matrix[:3, 3] += _offset_m(files, axis)
    return matrix


def _radians(files: LinkedFiles, axis: Any) -> float:
    unit = attribute_text(axis, "units").strip() or "deg"
    scale = radians_per(unit)
    if scale is None:
        raise unknown_unit(files, axis, unit, "deg or rad")
    return float(few_numbers(axis)[0]) * scale


def _metres(files: LinkedFiles, axis: Any) -> float:
    return float(few_numbers(axis)[0]) * metres_of(files, axis)


def _offset_m(files: LinkedFiles, axis: Any) -> Float64Array:
    """Return an axis's offset, (3,), metres: in ``offset_units``, else in the axis's own unit if that is a length."""
    offset = np.asarray(read_attribute(axis, "offset", (0.0, 0.0, 0.0)), dtype=np.float64).ravel()
    if offset.size != 3 or not offset.any():
        return np.zeros(3)
    if not attribute_text(axis, "offset_units") and metres_per(attribute_text(axis, "units")) is None:
        files.doubt(f"The offset of {axis.name} is without a unit: read as m.")
        return offset
    named = "offset_units" if attribute_text(axis, "offset_units") else "units"
    return offset * metres_of(files, axis, attribute=named)
