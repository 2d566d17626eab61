"""Masks: combined with a record of who removed how many pixels, written and read as files.

In memory a mask is ``bad_pixels``, True = bad.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import MAX_STACK_PIXELS
from peaknet_pipeline.hdf5.attributes import read_attribute, write_text
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles, damaged
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.records import describe, make_record
from peaknet_pipeline.runs.slabs import frame_of_stack, map_panels
from peaknet_pipeline.types import BoolArray, FrameArray, Geometry, MaskLayer

CONVENTIONAL_MASKS = (
    "/entry_1/data_1/mask",
    "/entry_1/instrument_1/detector_1/mask",
    "/entry/instrument/detector/pixel_mask",
    "/entry/instrument/detector/detectorSpecific/pixel_mask",
)
MASK_DATA = "/bad_pixels"
MASK_REASONS = "/reasons"
MASK_FRAME = "/mask"
"""The mask as a frame of the data set, as the ``.geom`` of that data set reads it."""
MOST = 0.5
"""Share of the pixels from which on a mask is doubted: it may have been read the wrong way round."""

INVERT = (
    "Then invert it: --invert-mask, or mask: {invert_masks: true} in experiment.yaml, "
    "or mask0_goodbits in the geometry."
)


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


def encode_reasons(layers: Mapping[str, BoolArray]) -> npt.NDArray[np.uint32]:
    """Return an image whose bit k is set where the k-th layer calls the pixel bad.

    Raises
    ------
    RunError
        There are more layers than bits.

    """
    if not 0 < len(layers) <= 32:
        raise RunError("a mask's layers do not fit 32 bits", found=list(layers))
    bits = np.zeros(next(iter(layers.values())).shape, dtype=np.uint32)
    for k, layer in enumerate(layers.values()):
        bits |= layer.astype(np.uint32) << np.uint32(k)
    return bits


def write_mask(
    bad_pixels: BoolArray,
    path: Path,
    *,
    sources: Sequence[MaskSource] = (),
    layers: Mapping[str, BoolArray] | None = None,
    geometry: Geometry | None = None,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write a mask, (n_panels, ss, fs), True = bad, with its sources, as HDF5 or bare ``.npy``, atomically.

    With ``layers``, ``/reasons`` tells for every pixel which of them call it bad. With a ``geometry``, ``/mask``
    holds it once more as one frame of the run's data set: ``mask0_data = /mask``, ``mask0_badbits = 0xff`` in a ``.geom``.
    ``provenance`` becomes attributes of the mask.

    Raises
    ------
    RunError
        The geometry's panels have data sets of their own.

    """
    if path.suffix == ".npy":
        with replace_atomically(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, bad_pixels, allow_pickle=False)
        return
    with new_hdf5(path) as file:
        add_mask(file, bad_pixels, sources=sources, layers=layers)
        if geometry is not None:
            frame = frame_of_stack(bad_pixels.astype(np.uint8), geometry)
            file.create_dataset(MASK_FRAME, data=frame, compression="gzip", shuffle=True)
        file[MASK_DATA].attrs.update(dict(provenance or {}))


def add_mask(
    file: Any,
    bad_pixels: BoolArray,
    *,
    sources: Sequence[MaskSource] = (),
    layers: Mapping[str, BoolArray] | None = None,
) -> None:
    """Add a mask to an open file, as :func:`write_mask` lays it out."""
    data = file.create_dataset(MASK_DATA, data=bad_pixels.astype(np.uint8), compression="gzip", shuffle=True)
    data.attrs["meaning"] = "1 = bad pixel, 0 = good; (panel, ss, fs)"
    write_text(data, "sources", json.dumps([dataclasses.asdict(source) for source in sources]))
    if layers:
        bits = file.create_dataset(
            MASK_REASONS, data=encode_reasons(layers), compression="gzip", shuffle=True
        )
        bits.attrs["meaning"] = "bit k is set where layer k calls the pixel bad"
        write_text(bits, "layers", json.dumps(list(layers)))


def read_layers(path: Path) -> dict[str, BoolArray]:
    """Return the layers of a mask that :func:`write_mask` wrote, by name; none where it holds no reasons.

    Raises
    ------
    RunError
        The layers cannot be read.

    """
    with LinkedFiles(path) as files:
        if files.find(MASK_REASONS) is None:
            return {}
        reasons = files.dataset(MASK_REASONS)
        try:
            bits = read_whole(reasons).astype(np.uint32)
            names = [str(name) for name in json.loads(read_attribute(reasons, "layers"))][:32]
        except DAMAGE as error:
            raise damaged(path, error, MASK_REASONS) from error
    return {name: (bits >> np.uint32(k)) & np.uint32(1) != 0 for k, name in enumerate(names)}


def read_mask(path: Path, geometry: Geometry | None = None) -> tuple[BoolArray, tuple[MaskSource, ...]]:
    """Read a mask as :func:`write_mask` writes it, or an array of the stack's or the slab's shape.

    In foreign files 0 is good and everything else bad; boolean arrays are True = bad.

    Raises
    ------
    RunError
        The file does not hold a mask, or one of another shape.

    """
    path = Path(path)
    array, sources = _read_array(path)
    bad = _fit(array != 0, geometry, path)
    return bad, sources or (MaskSource(path.name, int(bad.sum()), int(bad.sum())),)


def is_written_mask(path: Path) -> bool:
    """Tell whether an HDF5 file is a mask as :func:`write_mask` writes it; False for what can't be opened."""
    try:
        with LinkedFiles(path) as files:
            return files.find(MASK_DATA) is not None and files.find(MASK_REASONS) is not None
    except (RunError, *DAMAGE):
        return False


def read_drawn_mask(
    path: Path, geometry: Geometry | None = None, *, invert: bool = False, doubt: Callable[[str], object]
) -> BoolArray:
    """Read a mask as :func:`read_mask` does, and see to its polarity as :func:`settle_polarity` does.

    A mask that this package wrote says itself what its values mean, and is taken as it is.
    """
    array, sources = _read_array(Path(path))
    bad = _fit(array != 0, geometry, Path(path))
    return bad if sources else settle_polarity(bad, Path(path).name, invert=invert, doubt=doubt)


def settle_polarity(
    bad_pixels: BoolArray, name: str, *, invert: bool = False, doubt: Callable[[str], object]
) -> BoolArray:
    """Return a mask, (n_panels, ss, fs), True = bad, that may have been read the wrong way round.

    Parameters
    ----------
    bad_pixels : bool, (n_panels, ss, fs)
    name : str
        What the mask is called in the doubt.
    invert : bool
        Turn a mask round that takes more than half of the pixels.
    doubt : callable
        Told, in a sentence, when a mask takes more than half of the pixels, or was turned round.

    """
    share = float(bad_pixels.mean())
    if share <= MOST:
        return bad_pixels
    if invert:
        doubt(f"The mask {name} took {share:.0%} of the pixels: it was inverted, 1 is good there.")
        return ~bad_pixels
    doubt(f"The mask {name} takes {share:.0%} of the pixels: is 1 good here? {INVERT}")
    return bad_pixels


def apply_bits(values: FrameArray, layer: MaskLayer) -> BoolArray:
    """Return where mask values call a pixel bad: a good bit is missing, or a bad bit is set."""
    bits = values.astype(np.int64, copy=False).view(np.uint64)
    good_bits, bad_bits = (np.uint64(b & 0xFFFFFFFFFFFFFFFF) for b in (layer.good_bits, layer.bad_bits))
    missing = (bits & good_bits) != good_bits
    bad: BoolArray = missing | ((bits & bad_bits) != 0)
    return bad


def _read_array(path: Path) -> tuple[npt.NDArray[np.generic], tuple[MaskSource, ...]]:
    """Read the values of a mask file, and who made it; nobody where it isn't this package's."""
    if not path.is_file():
        raise RunError("no such mask file", where=path)
    array, sources = _read_npy(path) if path.suffix == ".npy" else _read_hdf5(path)
    _check_array(array, path)
    return array, sources


def _read_npy(path: Path) -> tuple[npt.NDArray[np.generic], tuple[MaskSource, ...]]:
    """Map the file instead of reading it: what its header claims beyond its size is then refused, and takes no memory."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False), ()
    except (*DAMAGE, OverflowError, EOFError, SyntaxError, TokenError) as error:
        raise RunError(f"not a numpy mask ({describe(error)})", where=path) from error


def _check_array(array: npt.NDArray[np.generic], path: Path) -> None:
    expected = "numbers, (panel, ss, fs) or (ss, fs)"
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif" or array.ndim not in (2, 3):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise RunError("not a mask", where=path, expected=expected, found=found)
    if not 0 < array.size <= MAX_STACK_PIXELS:
        raise RunError("the mask has an absurd shape", where=path, expected=expected, found=array.shape)


def _read_hdf5(path: Path) -> tuple[npt.NDArray[np.generic], tuple[MaskSource, ...]]:
    with LinkedFiles(path) as files:
        places = (MASK_DATA, *CONVENTIONAL_MASKS, MASK_FRAME, "/data/data")
        names = [name for name in places if files.find(name) is not None]
        if not names:
            raise RunError("no mask in the file", where=path, expected=MASK_DATA)
        data = files.dataset(names[0])
        try:
            if math.prod(data.shape) > MAX_STACK_PIXELS:
                raise RunError("the mask has an absurd shape", where=path, found=data.shape)
            told = json.loads(read_attribute(data, "sources", "[]"))
            sources = tuple(make_record(MaskSource, one, where=path, error=RunError) for one in told)
            return read_whole(data), sources
        except DAMAGE as error:
            raise RunError(f"the mask {names[0]} cannot be read ({error})", where=path) from error


def _fit(bad: BoolArray, geometry: Geometry | None, path: Path) -> BoolArray:
    if geometry is None:
        return bad if bad.ndim == 3 else bad[None]
    if bad.shape == geometry.stack_shape:
        return bad
    try:
        slab_map = map_panels(bad.shape, geometry)
        if slab_map.frame_axis is not None:
            raise RunError("it is one mask per frame, or of other panels")
        stack: BoolArray = slab_map.to_stack(bad[slab_map.window]).astype(np.bool_)[0]
        return stack
    except RunError as error:
        what = f"the mask does not fit: {error.what}"
        raise RunError(what, where=path, expected=geometry.stack_shape, found=bad.shape) from error
