"""The masks that belong to a run.

Polarity is settled here, once:

* A mask that the geometry names follows its bits: bad unless all good bits are set, bad if any bad bit is
set;
  without bits, everything but zero is bad.
* Where the geometry names none, the places whose meaning a standard fixes are used: CXI's
``/entry_1/data_1/mask``
  and NeXus's ``pixel_mask``; in both 0 is good. Other masks (``/entry/mask``, …) have no agreed polarity and
  are left alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import MAX_STACK_PIXELS
from peaknet_pipeline.geometry.maps import geometry_bad_pixels
from peaknet_pipeline.geometry.slabs import mask_layers
from peaknet_pipeline.hdf5.chunks import read_chunks
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.runs.masks import (
    CONVENTIONAL_MASKS,
    INVERT,
    MaskSource,
    apply_bits,
    combine_masks,
    settle_polarity,
)
from peaknet_pipeline.runs.nexus_layout import find_detector
from peaknet_pipeline.runs.series import Event, substitute
from peaknet_pipeline.runs.slabs import SlabMap, map_panels, map_plain, map_stack
from peaknet_pipeline.types import BoolArray, Geometry, MaskLayer

NEXUS_MASKS = ("pixel_mask", "detectorSpecific/pixel_mask")
MAX_SAMPLED_FRAMES = 16

JointMask = tuple[str | None, BoolArray, tuple[MaskSource, ...]]
"""Where masks are, the joint mask, and what each source contributed."""


def read_joint_mask(
    files: LinkedFiles,
    geometry: Geometry | None,
    shape: tuple[int, int, int],
    events: tuple[Event, ...] = ((),),
    *,
    invert: bool = False,
) -> JointMask:
    """Return where a run's masks are, what its geometry and they call bad together, and who removed how many pixels.

    Parameters are those of :func:`read_run_mask`, which raises what this raises.

    Raises
    ------
    RunError
        The mask does not fit the frames, or no good pixel is left.

    """
    masks = {"geometry": geometry_bad_pixels(geometry)} if geometry is not None else {}
    path, bad = read_run_mask(files, geometry, shape, events, invert=invert)
    if path is not None and bad is not None:
        if bad.shape != shape:
            raise RunError(f"the mask {path} does not fit the frames", expected=shape, found=bad.shape)
        masks[path] = bad
    if not masks:
        return None, np.zeros(shape, dtype=np.bool_), ()
    joint, sources = combine_masks(masks)
    if joint.all():
        raise RunError("every pixel is bad", found=", ".join(masks), remedy=f"Is 1 good here? {INVERT}")
    return path, joint, sources


def read_run_mask(
    files: LinkedFiles,
    geometry: Geometry | None,
    stack_shape: tuple[int, int, int],
    events: tuple[Event, ...] = ((),),
    *,
    invert: bool = False,
) -> tuple[str | None, BoolArray | None]:
    """Read the masks that belong to a run; return where they are and the joint mask, or None twice.

    Of a mask per frame, pixels count that are bad in each of up to 16 frames, evenly spaced; of a mask per event (a path
    with placeholders), those that are bad in each of up to 16 events. A mask that takes more than half of the pixels is
    doubted, or turned round if ``invert`` says so.

    Raises
    ------
    RunError
        A mask that the geometry names is missing or does not fit.

    """
    reader = _MaskReader(files, geometry, stack_shape, events, invert)
    layers = mask_layers(geometry) if geometry is not None else ()
    if not layers:
        return reader.read_conventional()
    joint: BoolArray = np.logical_or.reduce([reader.read(layer) for layer in layers])
    return ", ".join(f"{layer.file}:{layer.path}" if layer.file else layer.path for layer in layers), joint


@dataclass(frozen=True)
class _MaskReader:
    files: LinkedFiles
    geometry: Geometry | None
    stack_shape: tuple[int, int, int]
    events: tuple[Event, ...]
    invert: bool

    def read_conventional(self) -> tuple[str | None, BoolArray | None]:
        for path in self._conventional_places():
            if isinstance(self.files.find(path), h5py.Dataset):
                return path, self.read(MaskLayer(path, bad_bits=-1))
        return None, None

    def _conventional_places(self) -> Iterator[str]:
        """Yield where masks may lie; a link there that leads nowhere is doubted: the file means to have a mask."""
        detector = find_detector(self.files)
        own = [f"{detector}/{name}" for name in NEXUS_MASKS] if detector is not None else []
        for path in dict.fromkeys((*CONVENTIONAL_MASKS, *own)):
            if self.files.find(path) is not None:
                yield path
            elif self.files.has_link(path):
                self.files.doubt(
                    f"The mask {path} is a link that leads nowhere: no pixel counts as bad by it."
                )

    def read(self, layer: MaskLayer) -> BoolArray:
        if layer.file is None:
            bad = self._read_from(self.files, layer)
        else:
            with LinkedFiles(self._find_file(layer.file)) as own:
                bad = self._read_from(own, layer)
        return settle_polarity(bad, layer.path, invert=self.invert, doubt=self.files.doubt)

    def _find_file(self, name: str) -> Path:
        """Find a mask file as named by the geometry: absolute, beside the geometry, or beside the run."""
        source = self.geometry.source if self.geometry is not None else None
        folders = [source.parent] if source is not None else []
        for folder in (*folders, self.files.path.parent):
            path = (folder / name).resolve()
            if path.is_file():
                beside = any(path.is_relative_to(f.resolve()) for f in folders)
                if self.files.has_own_root and not beside and not self.files.allows(path):
                    what = "the geometry's mask file lies outside the allowed folders"
                    raise RunError(what, where=path, expected=self.files.told_roots)
                return path
        remedy = "Copy it beside the geometry."
        raise RunError(
            "the geometry's mask file is missing", where=self.files.path, found=name, remedy=remedy
        )

    def _read_from(self, files: LinkedFiles, layer: MaskLayer) -> BoolArray:
        if "%" not in layer.path:
            return self._read_dataset(files, layer, layer.path)
        chosen = np.unique(np.linspace(0, len(self.events) - 1, MAX_SAMPLED_FRAMES).astype(int))
        paths = [substitute(layer.path, self.events[i]) for i in chosen]
        joint: BoolArray = np.logical_and.reduce([self._read_dataset(files, layer, path) for path in paths])
        return joint

    def _read_dataset(self, files: LinkedFiles, layer: MaskLayer, path: str) -> BoolArray:
        dataset = files.dataset(path)
        if dataset.dtype.kind not in "uib":
            raise RunError(f"the mask {path} is not whole numbers", where=files.path, found=dataset.dtype)
        _check_size(dataset, files.path)
        slab_map = self._map(dataset.shape)
        if self.geometry is None and slab_map.stack_shape != self.stack_shape:
            what = f"the mask {layer.path} does not fit the frames"
            raise RunError(what, where=files.path, expected=self.stack_shape, found=slab_map.stack_shape)
        n = 1 if slab_map.frame_axis is None else dataset.shape[slab_map.frame_axis]
        try:
            parts = [
                apply_bits(
                    slab_map.to_stack(read_chunks(dataset, slab_map.selection(i, i + 1), None))[0], layer
                )
                for i in np.unique(np.linspace(0, n - 1, MAX_SAMPLED_FRAMES).astype(int))
            ]
        except DAMAGE as error:
            raise RunError(f"the mask {path} cannot be read ({error})", where=files.path) from error
        joint: BoolArray = np.logical_and.reduce(parts)
        return joint

    def _map(self, shape: tuple[int, ...]) -> SlabMap:
        if self.geometry is not None:
            return map_panels(shape, self.geometry)
        if shape == self.stack_shape:
            return map_stack(self.stack_shape)
        return map_plain(shape)


def _check_size(dataset: Any, where: Path) -> None:
    shape = dataset.shape or ()
    if len(shape) < 2 or math.prod(shape[-3:] if len(shape) > 3 else shape[-2:]) > MAX_STACK_PIXELS:
        raise RunError(f"the mask {dataset.name} has an absurd shape", where=where, found=dataset.shape)
