"""One-to-one pairing of points on panels: found peaks with predictions, truth or another finder."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.types import Float64Array, IntArray


@dataclass(frozen=True)
class Pairs:
    """One-to-one pairs, ordered by ``a``.

    Attributes
    ----------
    a, b : int64, (n_pairs,)
        Positions in the two point lists.
    distance : float64, (n_pairs,)
        Distance of the two points, pixels.

    """

    a: IntArray
    b: IntArray
    distance: Float64Array


def match_points(
    a_panel: npt.ArrayLike,
    a_fs: npt.ArrayLike,
    a_ss: npt.ArrayLike,
    b_panel: npt.ArrayLike,
    b_fs: npt.ArrayLike,
    b_ss: npt.ArrayLike,
    *,
    max_distance: float,
) -> Pairs:
    """Pair two point lists one to one: as many pairs as possible, then the smallest total distance.

    Points on different panels are never paired. ``panel`` may be any integer key, so many frames can be
    paired at once by giving ``frame * n_panels + panel``.

    The slow equivalent is the Hungarian method (Kuhn 1955) on the full cost matrix of each panel with cost
    ``distance - C`` for pairs within reach and 0 otherwise, ``C`` larger than any sum of distances. Here it
    runs only on the connected groups of points within reach of each other.

    Parameters
    ----------
    a_panel, b_panel : array_like of int, (n,) and (m,)
        Panel (or frame-and-panel) keys.
    a_fs, a_ss, b_fs, b_ss : array_like of float, (n,) and (m,)
        Positions, pixels.
    max_distance : float
        Pairs farther apart are not made, pixels (inclusive).

    Returns
    -------
    Pairs
        Empty when nothing is within reach.

    Raises
    ------
    ParameterError
        ``max_distance`` is not a positive number.

    """
    if not (np.isfinite(max_distance) and max_distance > 0):
        raise ParameterError("not a distance", where="match_points", expected="> 0 px", found=max_distance)
    a_points = _keyed_points(a_panel, a_fs, a_ss, 3.0 * max_distance)
    b_points = _keyed_points(b_panel, b_fs, b_ss, 3.0 * max_distance)
    if not (len(a_points) and len(b_points)):
        return _make_pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    from scipy.spatial import KDTree

    # The tree gets a hair more than asked for, because rounding in a large key coordinate may cost the exact
    # limit.
    near = KDTree(a_points).sparse_distance_matrix(
        KDTree(b_points), max_distance * (1 + 1e-9), output_type="ndarray"
    )
    a, b = near["i"].astype(np.int64), near["j"].astype(np.int64)
    distance = np.hypot(*(a_points[a, 1:] - b_points[b, 1:]).T)
    inside = distance <= max_distance
    return _solve_groups(a[inside], b[inside], distance[inside], len(a_points), len(b_points))


def _keyed_points(panel: npt.ArrayLike, fs: npt.ArrayLike, ss: npt.ArrayLike, spacing: float) -> Float64Array:
    key = np.asarray(panel, dtype=np.float64) * spacing
    return np.column_stack([key, np.asarray(fs, np.float64), np.asarray(ss, np.float64)]).reshape(-1, 3)


def _make_pairs(a: IntArray, b: IntArray, distance: Float64Array) -> Pairs:
    order = np.argsort(a, kind="stable")
    return Pairs(a[order], b[order], distance[order])


def _solve_groups(a: IntArray, b: IntArray, distance: Float64Array, n_a: int, n_b: int) -> Pairs:
    """Keep lone candidates as they are; solve the assignment in each larger group of candidates."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_points = n_a + n_b
    graph = coo_array((np.ones(len(a), np.int8), (a, b + n_a)), shape=(n_points, n_points))
    _, label = connected_components(graph, directed=False)
    group = label[a]
    size = np.bincount(group, minlength=1)
    keep = size[group] == 1
    crowded = np.flatnonzero(~keep)
    crowded = crowded[np.argsort(group[crowded], kind="stable")]
    starts = np.flatnonzero(np.diff(group[crowded], prepend=-1))
    for members in np.split(crowded, starts[1:]):
        if len(members):
            keep[members[_assign(a[members], b[members], distance[members])]] = True
    return _make_pairs(a[keep], b[keep], distance[keep])


def _assign(a: IntArray, b: IntArray, distance: Float64Array) -> IntArray:
    """Return which candidates of one group form the best assignment."""
    from scipy.optimize import linear_sum_assignment

    a_values, row = np.unique(a, return_inverse=True)
    b_values, column = np.unique(b, return_inverse=True)
    bonus = (distance.max() + 1.0) * (min(len(a_values), len(b_values)) + 1)
    cost = np.zeros((len(a_values), len(b_values)))
    cost[row, column] = distance - bonus
    candidate = np.full(cost.shape, -1, dtype=np.int64)
    candidate[row, column] = np.arange(len(a))
    chosen = candidate[linear_sum_assignment(cost)]
    return chosen[chosen >= 0]
