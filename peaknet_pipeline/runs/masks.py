"""Masks: read from run files, written, combined with a record of who removed how many pixels.

In memory a mask is ``bad_pixels``, True = bad. Polarity is settled here, once:

* A mask that the geometry names follows its bits: bad unless all good bits are set, bad if any bad bit is
set; without bits,
  everything but zero is bad.
* Where the geometry names none, the two places whose meaning a standard fixes are used: CXI's
``/entry_1/data_1/mask``
  and NeXus's ``pixel_mask``; in both 0 is good. Other masks (``/entry/mask``, …) have no agreed polarity and
  are left alone.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.slabs import mask_layers
from peaknet_pipeline.runs.hdf5_files import DAMAGE, LinkedFiles, open_hdf5
from peaknet_pipeline.runs.slabs import map_panels, map_plain
from peaknet_pipeline.tables import replace_atomically
from peaknet_pipeline.types import BoolArray, FrameArray, Geometry, MaskLayer

CONVENTIONAL_MASKS = (
    "/entry_1/data_1/mask",
    "/entry_1/instrument_1/detector_1/mask",
    "/entry/instrument/detector/pixel_mask",
    "/entry/instrument/detector/detectorSpecific/pixel_mask",
)
MASK_DATA = "/bad_pixels"
MAX_SAMPLED_FRAMES = 16


@dataclass(frozen=True)
class MaskSource:
    """What a source of a mask did: how many pixels it calls bad, how many of them no earlier source did."""

    name: str
    n_bad: int
    n_new: int


def combine_masks(masks: Mapping[str, BoolArray]) -> tuple[BoolArray, tuple[MaskSource, ...]]:
    """Join masks, in order; return the joint mask and what each source contributed.

    Raises
    ------
    RunError
        There is no mask, or their shapes differ.

    """
    if not masks:
        raise RunError("no masks to combine")
    shapes = {name: mask.shape for name, mask in masks.items()}
    if len(set(shapes.values())) > 1:
        raise RunError("masks differ in shape", found=shapes)
    joint: BoolArray = np.zeros(next(iter(shapes.values())), dtype=np.bool_)
    sources = []
    for name, mask in masks.items():
        sources.append(MaskSource(name, int(mask.sum()), int((mask & ~joint).sum())))
        joint = joint | mask
    return joint, tuple(sources)


def write_mask(bad_pixels: BoolArray, path: Path, *, sources: Sequence[MaskSource] = ()) -> None:
    """Write a mask, (n_panels, ss, fs), True = bad, with its sources, as HDF5 or bare ``.npy``, atomically.

    CrystFEL reads it too: ``mask0_data = /bad_pixels``, ``mask0_badbits = 0xff``, a panel per index.
    """
    with replace_atomically(path) as temporary:
        if path.suffix == ".npy":
            with temporary.open("wb") as stream:
                np.save(stream, bad_pixels, allow_pickle=False)
            return
        with h5py.File(temporary, "w") as file:
            data = file.create_dataset(
                MASK_DATA, data=bad_pixels.astype(np.uint8), compression="gzip", shuffle=True
            )
            data.attrs["meaning"] = "1 = bad pixel, 0 = good; (panel, ss, fs)"
            data.attrs["sources"] = json.dumps([dataclasses.asdict(source) for source in sources])


def read_mask(path: Path, geometry: Geometry | None = None) -> tuple[BoolArray, tuple[MaskSource, ...]]:
    """Read a mask as :func:`write_mask` writes it, or an array of the stack's or the slab's shape.

    In foreign files 0 is good and everything else bad; boolean arrays are True = bad.

    Raises
    ------
    RunError
        The file does not hold a mask, or one of another shape.

    """
    path = Path(path)
    if not path.is_file():
        raise RunError("no such mask file", where=path)
    array, sources = _read_npy(path) if path.suffix == ".npy" else _read_hdf5(path)
    bad = _fit(array != 0, geometry, path)
    return bad, sources or (MaskSource(path.name, int(bad.sum()), int(bad.sum())),)


def read_run_mask(files: LinkedFiles, geometry: Geometry | None) -> tuple[str | None, BoolArray | None]:
    """Read the masks that belong to a run; return where they are and the joint mask, or None twice.

    Raises
    ------
    RunError
        A mask that the geometry names is missing or does not fit, or a conventional mask calls most pixels
        bad.

    """
    layers = mask_layers(geometry) if geometry is not None else ()
    if not layers:
        return _conventional_mask(files, geometry)
    masks = [_read_layer(files, layer, geometry) for layer in layers]
    joint: BoolArray = np.logical_or.reduce(masks)
    return ", ".join(f"{layer.file}:{layer.path}" if layer.file else layer.path for layer in layers), joint


def apply_bits(values: FrameArray, layer: MaskLayer) -> BoolArray:
    """Return where mask values call a pixel bad: a good bit is missing, or a bad bit is set."""
    bits = values.astype(np.int64, copy=False)
    missing = (bits & layer.good_bits) != layer.good_bits
    bad: BoolArray = missing | ((bits & layer.bad_bits) != 0)
    return bad


def _conventional_mask(files: LinkedFiles, geometry: Geometry | None) -> tuple[str | None, BoolArray | None]:
    for path in CONVENTIONAL_MASKS:
        if isinstance(files.find(path), h5py.Dataset):
            bad = _read_layer(files, MaskLayer(path, bad_bits=-1), geometry)
            if bad.mean() > 0.5:
                raise RunError(
                    f"the mask {path} calls {bad.mean():.0%} of the pixels bad",
                    where=files.path,
                    expected="0 = good",
                    remedy="Declare it in the geometry with mask0_goodbits and mask0_badbits.",
                )
            return path, bad
    return None, None


def _read_layer(files: LinkedFiles, layer: MaskLayer, geometry: Geometry | None) -> BoolArray:
    if layer.file is None:
        return _read_layer_data(files, files.dataset(layer.path), layer, geometry)
    path = _mask_file(files, layer.file, geometry)
    with LinkedFiles(path) as own:
        return _read_layer_data(own, own.dataset(layer.path), layer, geometry)


def _mask_file(files: LinkedFiles, name: str, geometry: Geometry | None) -> Path:
    """Find a mask file as named by the geometry: absolute, beside the geometry, or beside the run."""
    folders = [geometry.source.parent] if geometry is not None and geometry.source is not None else []
    for folder in (*folders, files.path.parent):
        path = (folder / name).resolve()
        if path.is_file():
            if files.has_own_root and not any(
                path.is_relative_to(f.resolve()) for f in (files.root, *folders)
            ):
                raise RunError(
                    "the geometry's mask file lies outside the allowed folder",
                    where=path,
                    expected=files.root,
                )
            return path
    remedy = "Copy it beside the geometry."
    raise RunError("the geometry's mask file is missing", where=files.path, found=name, remedy=remedy)


def _read_layer_data(
    files: LinkedFiles, dataset: Any, layer: MaskLayer, geometry: Geometry | None
) -> BoolArray:
    if dataset.dtype.kind not in "uib":
        raise RunError(f"the mask {layer.path} is not whole numbers", where=files.path, found=dataset.dtype)
    slab_map = map_plain(dataset.shape) if geometry is None else map_panels(dataset.shape, geometry)
    if geometry is None and dataset.ndim == 3:
        slab_map = map_plain((1, *dataset.shape))
    n = 1 if slab_map.frame_axis is None else dataset.shape[slab_map.frame_axis]
    frames = np.unique(np.linspace(0, n - 1, MAX_SAMPLED_FRAMES).astype(int))
    try:
        parts = [
            apply_bits(slab_map.to_stack(dataset[slab_map.selection(i, i + 1)])[0], layer) for i in frames
        ]
    except DAMAGE as error:
        raise RunError(f"the mask {layer.path} cannot be read ({error})", where=files.path) from error
    joint: BoolArray = np.logical_and.reduce(parts)
    return joint


def _read_npy(path: Path) -> tuple[npt.NDArray[np.generic], tuple[MaskSource, ...]]:
    try:
        return np.load(path, allow_pickle=False), ()
    except (ValueError, OSError, EOFError) as error:
        raise RunError(f"not a numpy mask ({error})", where=path) from error


def _read_hdf5(path: Path) -> tuple[npt.NDArray[np.generic], tuple[MaskSource, ...]]:
    with open_hdf5(path) as file:
        names = [name for name in (MASK_DATA, *CONVENTIONAL_MASKS, "/mask", "/data/data") if name in file]
        if not names:
            raise RunError("no mask in the file", where=path, expected=MASK_DATA)
        try:
            data = file[names[0]]
            sources = json.loads(data.attrs.get("sources", "[]"))
            return data[()], tuple(MaskSource(**source) for source in sources)
        except DAMAGE as error:
            raise RunError(f"the mask {names[0]} cannot be read ({error})", where=path) from error


def _fit(bad: BoolArray, geometry: Geometry | None, path: Path) -> BoolArray:
    if geometry is None:
        return bad if bad.ndim == 3 else bad[None]
    if bad.shape == geometry.stack_shape:
        return bad
    try:
        slab_map = map_panels(bad.shape, geometry)
        stack: BoolArray = slab_map.to_stack(bad[slab_map.window]).astype(np.bool_)[0]
        return stack
    except RunError as error:
        what = f"the mask does not fit: {error.what}"
        raise RunError(what, where=path, expected=geometry.stack_shape, found=bad.shape) from error
