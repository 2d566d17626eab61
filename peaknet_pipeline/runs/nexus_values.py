"""Fields of NeXus files that hold a few numbers, and axes with a direction."""

from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.attributes import read_attribute
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.types import Float64Array

MAX_VALUES = 1024


def few_numbers(dataset: Any) -> Float64Array:
    """Return the few numbers of a data set, (n,).

    Raises
    ------
    RunError
        It holds none, too many, or something else.

    """
    if dataset.dtype.kind not in "uif" or not 0 < (dataset.size or 0) <= MAX_VALUES:
        found = f"{dataset.dtype} {dataset.shape}"
        raise RunError(f"{dataset.name} is not a few numbers", where=dataset.file.filename, found=found)
    return np.asarray(read_whole(dataset), dtype=np.float64).ravel()


def direction(axis: Any) -> Float64Array:
    """Return an axis's unit vector, (3,).

    Raises
    ------
    RunError
        The attribute ``vector`` is missing, or no direction.

    """
    vector = np.asarray(read_attribute(axis, "vector", (0.0, 0.0, 0.0)), dtype=np.float64).ravel()
    length = np.linalg.norm(vector)
    if vector.size != 3 or not length > 0:
        raise RunError(f"{axis.name} has no direction", where=axis.file.filename, found=vector.tolist())
    unit: Float64Array = vector / length
    return unit
