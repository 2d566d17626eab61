"""One-to-one pairing: optimal against the full Hungarian method, symmetric, never across panels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.pairing import Pairs, match_points


def draw_points(seed: int, n: int, m: int, side: float, n_panels: int = 2):
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, n_panels, k), rng.uniform(0, side, k), rng.uniform(0, side, k)) for k in (n, m)]


def best_by_hungarian(a, b, max_distance: float) -> tuple[int, float]:
    """Count and total distance of the best assignment, from one dense cost matrix over everything."""
    distance = np.hypot(a[1][:, None] - b[1][None], a[2][:, None] - b[2][None])
    allowed = (a[0][:, None] == b[0][None]) & (distance <= max_distance)
    rows, columns = linear_sum_assignment(np.where(allowed, distance - 1e6, 0.0))
    chosen = allowed[rows, columns]
    return int(chosen.sum()), float(distance[rows, columns][chosen].sum())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 40),
    m=st.integers(0, 40),
    side=st.sampled_from([8.0, 20.0, 60.0]),
)
def test_pairs_are_as_many_and_as_close_as_the_full_hungarian_method_finds(seed, n, m, side):
    a, b = draw_points(seed, n, m, side)
    pairs = match_points(*a, *b, max_distance=5.0)
    count, total = best_by_hungarian(a, b, 5.0) if n and m else (0, 0.0)
    assert len(pairs.a) == count
    assert pairs.distance.sum() == pytest.approx(total, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_pairing_is_symmetric_and_one_to_one(seed):
    a, b = draw_points(seed, 60, 50, 40.0)
    forth, back = match_points(*a, *b, max_distance=4.0), match_points(*b, *a, max_distance=4.0)
    assert len(np.unique(forth.a)) == len(forth.a)
    assert len(np.unique(forth.b)) == len(forth.b)
    assert {(i, j) for i, j in zip(forth.a, forth.b, strict=True)} == {
        (i, j) for i, j in zip(back.b, back.a, strict=True)
    }


def test_points_on_other_panels_are_never_paired():
    pairs = match_points([0, 1], [5.0, 5.0], [5.0, 5.0], [1], [5.0], [5.0], max_distance=5.0)
    assert pairs.a.tolist() == [1]


def test_the_limit_itself_is_within_reach_even_with_large_keys():
    key = 999_999 * 4096
    assert len(match_points([key], [0.0], [0.0], [key], [3.0], [4.0], max_distance=5.0).a) == 1
    assert len(match_points([key], [0.0], [0.0], [key], [3.0], [4.001], max_distance=5.0).a) == 0


def test_more_pairs_win_over_closer_ones():
    pairs = match_points([0, 0], [0.0, 3.0], [0.0, 0.0], [0, 0], [2.9, 7.0], [0.0, 0.0], max_distance=5.0)
    assert pairs.b.tolist() == [0, 1]


def test_nothing_gives_an_empty_result():
    pairs = match_points([], [], [], [0], [1.0], [1.0], max_distance=5.0)
    assert isinstance(pairs, Pairs)
    assert len(pairs.a) == len(pairs.b) == len(pairs.distance) == 0


@pytest.mark.parametrize("distance", [0.0, -1.0, np.nan, np.inf])
def test_a_distance_that_is_none_is_refused(distance):
    with pytest.raises(ParameterError, match="not a distance"):
        match_points([0], [0.0], [0.0], [0], [0.0], [0.0], max_distance=distance)
