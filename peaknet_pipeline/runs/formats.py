"""Tell file formats apart."""

from typing import Any

import h5py

from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles

_NXMX_MARKS = (
    "/entry/data/data_000001",
    "/entry/instrument/detector/detectorSpecific",
    "/entry/instrument/detector/beam_center_x",
    "/entry/instrument/detector/module",
    "/entry/instrument/detector/transformations",
)


def file_format(files: LinkedFiles) -> str:
    """Return ``nxmx``, ``cxi`` or ``hdf5``, judged by the groups in the file and its name.

    No text is read: HDF5 can loop for ever over the heap of a damaged file's strings.
    """
    if any(files.find(path) is not None for path in _NXMX_MARKS):
        return "nxmx"
    if isinstance(files.find("/entry_1"), h5py.Group) or files.path.suffix == ".cxi":
        return "cxi"
    return "hdf5"


def attribute_text(node: Any, name: str) -> str:
    """Return an HDF5 attribute as text, empty where there is none."""
    try:
        value = node.attrs.get(name, "")
    except DAMAGE:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
