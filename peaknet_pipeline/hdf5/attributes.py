"""Attributes of HDF5 objects as text."""

from typing import Any

import numpy as np

from peaknet_pipeline.hdf5.files import DAMAGE


def attribute_text(node: Any, name: str) -> str:
    """Return an HDF5 attribute as text, empty where there is none; of an array, its only element."""
    try:
        value = node.attrs.get(name, "")
    except DAMAGE:
        return ""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
