"""Tell file formats apart."""

from typing import Any

from peaknet_pipeline.runs.hdf5_files import DAMAGE, LinkedFiles


def file_format(files: LinkedFiles) -> str:
    """Return ``nxmx``, ``cxi`` or ``hdf5``, judged by the groups in the file and its name."""
    definition = files.find("/entry/definition")
    if definition is not None and "NXmx" in _text(definition):
        return "nxmx"
    if files.find("/entry/data/data_000001") is not None:
        return "nxmx"
    if files.find("/entry_1") is not None or files.path.suffix == ".cxi":
        return "cxi"
    return "hdf5"


def attribute_text(node: Any, name: str) -> str:
    """Return an HDF5 attribute as text, empty where there is none."""
    try:
        value = node.attrs.get(name, "")
    except DAMAGE:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _text(dataset: Any) -> str:
    try:
        value = dataset[()]
    except DAMAGE:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
