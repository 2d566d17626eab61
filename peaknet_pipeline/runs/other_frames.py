"""Frames in a CXI file beside those that are read: a second entry, or a second detector."""

import re
from collections.abc import Iterator

import h5py

from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.hdf5.storage import address

_ENTRY = re.compile(r"entry_[0-9]+")
_DATA = re.compile(r"data_[0-9]+")
_INSTRUMENT = re.compile(r"instrument_[0-9]+")
_DETECTOR = re.compile(r"detector_[0-9]+")
_PLACES = ((_ENTRY, _DATA), (_ENTRY, _INSTRUMENT, _DETECTOR))


def doubt_other_frames(files: LinkedFiles, read: str) -> None:
    """Doubt that all frames of a CXI file are read, where other entries or detectors have some; each is named."""
    if not _ENTRY.match(read.strip("/")) or "%" in read:
        return
    chosen = files.find(read)
    known = {address(chosen)} if isinstance(chosen, h5py.Dataset) else set()
    others = []
    for path in _places(files):
        found = files.find(path)
        if isinstance(found, h5py.Dataset) and len(found.shape or ()) > 1 and address(found) not in known:
            known.add(address(found))
            others.append(f"{path} {found.shape}")
    if others:
        files.doubt(f"There are more frames, which are not read: {', '.join(others[:5])}. Only {read} is.")


def _places(files: LinkedFiles) -> Iterator[str]:
    for patterns in _PLACES:
        groups = [""]
        for pattern in patterns:
            groups = [
                f"{group}/{name}"
                for group in groups
                for name in files.names(files.find(group or "/"))
                if pattern.fullmatch(name)
            ]
        yield from (f"{group}/data" for group in groups)
