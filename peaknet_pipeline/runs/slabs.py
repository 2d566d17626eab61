"""How frames lie in a data set: from the file's slab to the stack ``(n_panels, ss, fs)``."""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.maps import panel_shape
from peaknet_pipeline.geometry.slabs import dim_layout_of
from peaknet_pipeline.types import FrameArray, Geometry, Panel

Window = tuple[slice, ...]


@dataclass(frozen=True)
class SlabMap:
    """Where the panels of a stack lie in a data set.

    Attributes
    ----------
    frame_axis : int or None
        Dimension that counts frames; None: the data set is a single frame.
    window : tuple of slice
        What is read of the other dimensions: the smallest box that holds every panel.
    cuts : tuple of (panel number, window)
        Each panel's part of what is read.
    stack_shape : (n_panels, ss, fs)
    fixed : tuple of int
        Dimensions of the window, frames left out, in which a panel has a single index: modules, wherever they stand.
    is_stacked : bool
        What is read is the stack, but for its shape: a reshape does instead of the cuts.

    """

    frame_axis: int | None
    window: Window
    cuts: tuple[tuple[int, Window], ...]
    stack_shape: tuple[int, int, int]
    fixed: tuple[int, ...] = ()
    is_stacked: bool = False

    def selection(self, start: int, stop: int) -> Window:
        """Return the data set's selection for the frames ``start`` to ``stop``."""
        if self.frame_axis is None:
            return self.window
        return (*self.window[: self.frame_axis], slice(start, stop), *self.window[self.frame_axis :])

    def to_stack(self, slab: FrameArray) -> FrameArray:
        """Turn what was read into ``(n, n_panels, ss, fs)``, without copying simply stacked panels."""
        if self.frame_axis is None:
            slab = slab[None]
        elif self.frame_axis:
            slab = np.moveaxis(slab, self.frame_axis, 0)
        if self.is_stacked:
            return slab.reshape(slab.shape[0], *self.stack_shape)
        stack = np.zeros((slab.shape[0], *self.stack_shape), dtype=slab.dtype)
        for number, cut in self.cuts:
            part = slab[(slice(None), *cut)]
            height, width = (n for i, n in enumerate(part.shape[1:]) if i not in self.fixed)
            stack[:, number, :height, :width] = part.reshape(-1, height, width)
        return stack


def frame_of_stack(stack: FrameArray, geometry: Geometry) -> FrameArray:
    """Lay a stack (n_panels, ss, fs) out as one frame of the data set that the geometry describes; 0 where no panel is.

    Raises
    ------
    RunError
        The panels have data sets of their own.

    """
    if not is_one_data_set(geometry):
        raise RunError(
            "the panels have data sets of their own: no array holds them all", where=geometry.source
        )
    roles = [role for role in dim_layout_of(geometry) if role != "%"]
    places = [_place_in_frame(panel, roles) for panel in geometry.panels]
    shape = tuple(max(place[axis].stop for place in places) for axis in range(len(roles)))
    frame: FrameArray = np.zeros(shape, dtype=stack.dtype)
    for image, panel, place in zip(stack, geometry.panels, places, strict=True):
        height, width = panel_shape(panel)
        frame[place] = image[:height, :width].reshape(tuple(side.stop - side.start for side in place))
    return frame


def is_one_data_set(geometry: Geometry) -> bool:
    """Tell whether all panels lie in one data set."""
    return len({panel.data_path for panel in geometry.panels}) == 1


def _place_in_frame(panel: Panel, roles: list[str]) -> Window:
    fixed = iter(panel.stack_index)
    ends = {"ss": (panel.min_ss, panel.max_ss), "fs": (panel.min_fs, panel.max_fs)}
    sides = [ends.get(role) or (index := next(fixed), index) for role in roles]
    return tuple(slice(low, high + 1) for low, high in sides)


def map_plain(shape: tuple[int, ...]) -> SlabMap:
    """Map a data set without a geometry: (ss, fs), (frame, ss, fs) or (frame, panel, ss, fs)."""
    if not 2 <= len(shape) <= 4:
        raise RunError("not frames", expected="2, 3 or 4 dimensions", found=shape, remedy="Give a geometry.")
    return map_stack(shape[1:] if len(shape) > 2 else shape, 0 if len(shape) > 2 else None)


def map_stack(shape: tuple[int, ...], frame_axis: int | None = None) -> SlabMap:
    """Map frames that are stored as they are in memory, (ss, fs) or (panel, ss, fs)."""
    window = tuple(slice(0, n) for n in shape)
    if len(shape) == 2:
        return SlabMap(frame_axis, window, ((0, window),), (1, shape[0], shape[1]), is_stacked=True)
    cuts = tuple((k, (slice(k, k + 1), *window[1:])) for k in range(shape[0]))
    stack_shape = (shape[0], shape[1], shape[2])
    return SlabMap(frame_axis, window, cuts, stack_shape, fixed=(0,), is_stacked=True)


def map_panels(shape: tuple[int, ...], geometry: Geometry, numbers: tuple[int, ...] | None = None) -> SlabMap:
    """Map the panels ``numbers`` (all by default) of a geometry into a data set of the given shape.

    Raises
    ------
    RunError
        The number of dimensions disagrees, or panels lie outside the data set; every such panel is named.

    """
    roles = _roles(shape, geometry)
    frame_axis = roles.index("%") if "%" in roles else None
    sizes = [n for n, role in zip(shape, roles, strict=True) if role != "%"]
    kept = [role for role in roles if role != "%"]
    numbers = tuple(range(len(geometry.panels))) if numbers is None else numbers
    windows = [_panel_window(geometry.panels[i], kept) for i in numbers]
    _check_inside(windows, sizes, [geometry.panels[i] for i in numbers])
    box = tuple(
        slice(min(w[d].start for w in windows), max(w[d].stop for w in windows)) for d in range(len(kept))
    )
    cuts = tuple(
        (i, tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(w, box, strict=True)))
        for i, w in zip(numbers, windows, strict=True)
    )
    stacked = len(numbers) == len(geometry.panels) and _is_simply_stacked(cuts, box, geometry)
    fixed = tuple(d for d, role in enumerate(kept) if role == "n")
    return SlabMap(frame_axis, box, cuts, geometry.stack_shape, fixed, stacked)


def _roles(shape: tuple[int, ...], geometry: Geometry) -> tuple[str, ...]:
    declared = dim_layout_of(geometry)
    if len(shape) == len(declared):
        return declared
    if "%" in declared and len(shape) == len(declared) - 1:
        return tuple(role for role in declared if role != "%")
    if "%" not in declared and len(shape) == len(declared) + 1:
        return ("%", *declared)
    raise RunError(
        "the data set does not have the geometry's dimensions",
        expected=f"{len(declared)} ({', '.join(declared)})",
        found=f"{len(shape)} {shape}",
        remedy="Check the dim entries of the geometry, or the data path.",
    )


def _panel_window(panel: Panel, roles: list[str]) -> Window:
    fixed = iter(panel.stack_index)
    spans = {"ss": slice(panel.min_ss, panel.max_ss + 1), "fs": slice(panel.min_fs, panel.max_fs + 1)}
    window = []
    for role in roles:
        if role == "n":
            index = next(fixed)
            window.append(slice(index, index + 1))
        else:
            window.append(spans[role])
    return tuple(window)


def _check_inside(windows: list[Window], sizes: list[int], panels: list[Panel]) -> None:
    outside = [
        f"{panel.name} needs {'×'.join(str(w.stop) for w in window)}"
        for window, panel in zip(windows, panels, strict=True)
        if any(w.stop > n for w, n in zip(window, sizes, strict=True))
    ]
    if outside:
        more = f" and {len(outside) - 3} more" if len(outside) > 3 else ""
        raise RunError(
            "panels lie outside the data set",
            expected="; ".join(outside[:3]) + more,
            found="×".join(map(str, sizes)),
            remedy="Is this the geometry of this detector?",
        )


def _is_simply_stacked(cuts: tuple[tuple[int, Window], ...], box: Window, geometry: Geometry) -> bool:
    n_panels, height, width = geometry.stack_shape
    if any(panel_shape(panel) != (height, width) for panel in geometry.panels):
        return False
    lengths = [b.stop - b.start for b in box]
    if np.prod(lengths) != n_panels * height * width or lengths[-1] != width:
        return False
    order = [np.ravel_multi_index([s.start for s in cut], lengths) for _, cut in cuts]
    return order == [k * height * width for k in range(n_panels)]
