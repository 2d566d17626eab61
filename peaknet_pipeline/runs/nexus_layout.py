"""Where NeXus files keep the detector and the beam: groups are found by their class, whatever their names are."""

import itertools
from collections.abc import Iterator
from typing import Any

import h5py

from peaknet_pipeline.hdf5.attributes import attribute_text
from peaknet_pipeline.hdf5.files import LinkedFiles

MAX_LOOKED_AT = 64
_MARKS = ("beam_center_x", "detectorSpecific", "module", "transformations", "detector_distance", "pixel_mask")


def find_detector(files: LinkedFiles) -> str | None:
    """Return the path of the group that describes the NXmx detector, or None where there is none.

    Of several, the first that says where its pixels are is taken, with a doubt that names the others.
    """
    found = [path for instrument in _instruments(files) for path in _detectors(files, instrument)]
    marked = [path for path in found if _has_marks(files, path)]
    if len(marked) > 1:
        files.doubt(f"There are {len(marked)} detectors: {marked[0]} is read, not {', '.join(marked[1:])}.")
    return marked[0] if marked else None


def find_beams(files: LinkedFiles) -> Iterator[str]:
    """Yield the paths of groups that describe the beam: in the instrument, in the sample, in the entry itself."""
    entries = find_entries(files)
    instruments = _instruments(files)
    samples = [p for e in entries for p in _members(files, e, "NXsample", "sample")]
    for parent in (*instruments, *samples, *entries):
        yield from _members(files, parent, "NXbeam", "beam")


def find_entries(files: LinkedFiles) -> list[str]:
    """Return ``/entry``, else the groups whose names begin so, else those of class NXentry."""
    if isinstance(files.find("/entry"), h5py.Group):
        return ["/entry"]
    names = [name for name, _ in _groups(files, "/")]
    named = [f"/{name}" for name in names if name.lower().startswith("entry")]
    return named or _members(files, "/", "NXentry", "entry")


def _instruments(files: LinkedFiles) -> list[str]:
    return [
        path for entry in find_entries(files) for path in _members(files, entry, "NXinstrument", "instrument")
    ]


def _detectors(files: LinkedFiles, instrument: str) -> list[str]:
    return _members(files, instrument, "NXdetector", "detector")


def _members(files: LinkedFiles, parent: str, nexus_class: str, name: str) -> list[str]:
    """Return the paths of a group's groups that have a class, or the name that such a group usually has."""
    found = list(_groups(files, parent))
    chosen = [n for n, group in found if n == name or attribute_text(group, "NX_class") == nexus_class]
    return [f"{parent.rstrip('/')}/{n}" for n in sorted(chosen, key=lambda n: n != name)]


def _groups(files: LinkedFiles, parent: str) -> Iterator[tuple[str, Any]]:
    group = files.find(parent)
    if isinstance(group, h5py.Group):
        members = itertools.islice(files.members(group), MAX_LOOKED_AT)
        yield from ((name, member) for name, member in members if isinstance(member, h5py.Group))


def _has_marks(files: LinkedFiles, path: str) -> bool:
    if any(files.has_link(f"{path}/{mark}") for mark in _MARKS):
        return True
    return any(attribute_text(g, "NX_class") == "NXdetector_module" for _, g in _groups(files, path))
