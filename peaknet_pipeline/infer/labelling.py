"""Connected components of a panel's peak pixels, on the CPU: runs of pixels joined by union-find.

Peaks cover a small part of a panel, so a row is scanned once for runs of peak pixels, and only the runs are
joined. The numbering is that of ``scipy.ndimage.label`` with a 3x3 structure: by each component's first pixel
in raster order.
"""

import numba
import numpy as np
import numpy.typing as npt

from peaknet_pipeline.types import BoolArray

Int32Array = npt.NDArray[np.int32]

RUN_ROW, RUN_START, RUN_STOP, RUN_COMPONENT = 0, 1, 2, 3
"""Columns of a table of runs: row, first and last-plus-one column, component from 0."""


def label_components(mask: BoolArray) -> tuple[Int32Array, int]:
    """Label 8-connected components.

    Parameters
    ----------
    mask : (ss, fs) bool

    Returns
    -------
    labels : (ss, fs) int32
        0 outside, components from 1; identical to ``scipy.ndimage.label(mask, np.ones((3, 3)))``.
    n_components : int

    """
    labels = np.zeros(mask.shape, dtype=np.int32)
    n_components = _label(np.ascontiguousarray(mask, dtype=np.bool_), labels)
    return labels, int(n_components)


@numba.njit(cache=True, nogil=True)
def _label(mask, labels):  # type: ignore[no-untyped-def]
    runs = np.empty((64, 4), np.int32)
    n_runs = 0
    for row in range(mask.shape[0]):
        runs, n_runs = append_runs(mask[row], row, runs, n_runs)
    n_components = join_runs(runs, n_runs)
    for i in range(n_runs):
        labels[runs[i, 0], runs[i, 1] : runs[i, 2]] = runs[i, 3] + 1
    return n_components


@numba.njit(cache=True, nogil=True)
def append_runs(line, row, runs, n_runs):  # type: ignore[no-untyped-def]
    """Append the runs of True in ``line`` to ``runs``, which grows when it is full."""
    start = -1
    for column in range(line.size + 1):
        inside = column < line.size and line[column]
        if inside and start < 0:
            start = column
        elif not inside and start >= 0:
            runs = append_run(row, start, column, runs, n_runs)
            n_runs += 1
            start = -1
    return runs, n_runs


@numba.njit(cache=True, nogil=True)
def append_run(row, start, stop, runs, n_runs):  # type: ignore[no-untyped-def]
    """Put a run behind the first ``n_runs`` and return the table, which grows when it is full."""
    if n_runs == runs.shape[0]:
        grown = np.empty((2 * n_runs, 4), np.int32)
        grown[:n_runs] = runs
        runs = grown
    runs[n_runs, RUN_ROW] = row
    runs[n_runs, RUN_START] = start
    runs[n_runs, RUN_STOP] = stop
    return runs


@numba.njit(cache=True, nogil=True)
def join_runs(runs, n_runs):  # type: ignore[no-untyped-def]
    """Number the components of ``runs`` (in raster order) in its last column; return how many there are."""
    parent = np.arange(n_runs)
    above = 0
    for i in range(n_runs):
        while above < i and runs[above, 0] < runs[i, 0] - 1:
            above += 1
        while above < i and runs[above, 0] == runs[i, 0] - 1 and runs[above, 2] < runs[i, 1]:
            above += 1
        j = above
        while j < i and runs[j, 0] == runs[i, 0] - 1 and runs[j, 1] <= runs[i, 2]:
            _unite(parent, i, j)
            j += 1
    n_components = 0
    for i in range(n_runs):
        if parent[i] == i:
            runs[i, 3] = n_components
            n_components += 1
        else:
            runs[i, 3] = runs[_root(parent, i), 3]
    return n_components


@numba.njit(cache=True, nogil=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(cache=True, nogil=True)
def _unite(parent, i, j):  # type: ignore[no-untyped-def]
    # The smaller root wins, so that a component is numbered by its first run.
    a, b = _root(parent, i), _root(parent, j)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b
