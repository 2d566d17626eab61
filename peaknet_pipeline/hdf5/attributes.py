"""Attributes of HDF5 objects, as values and as text."""

from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.files import DAMAGE


def read_attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return the value of an attribute, or ``default`` where there is none.

    Raises
    ------
    RunError
        It is damaged.

    """
    try:
        if name not in node.attrs:
            return default
        value = node.attrs[name]
    except DAMAGE as error:
        what = f"attribute {name} of {node.name} is damaged ({error})"
        raise RunError(what, where=node.file.filename, remedy="Copy the file again.") from error
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def write_text(node: Any, name: str, text: str) -> None:
    """Write text as an attribute of fixed length, which is read back without another process."""
    node.attrs[name] = np.bytes_(text.encode())


def read_attributes(node: Any) -> dict[str, Any]:
    """Return all attributes of an object, by name; RunError if one is damaged."""
    try:
        names = list(node.attrs)
    except DAMAGE as error:
        what = f"the attributes of {node.name} are damaged ({error})"
        raise RunError(what, where=node.file.filename, remedy="Copy the file again.") from error
    return {name: read_attribute(node, name) for name in names}


def attribute_text(node: Any, name: str) -> str:
    """Return an HDF5 attribute as text, empty where there is none; of an array, its only element."""
    try:
        value = read_attribute(node, name, "")
    except RunError:
        return ""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
