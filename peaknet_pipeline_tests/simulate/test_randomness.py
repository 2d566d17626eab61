"""Random numbers of the pixel loops."""

import numpy as np
import pytest
from scipy import stats

from peaknet_pipeline.simulate.randomness import (
    draw_normal_pair,
    draw_poisson_array,
    draw_uniform,
    start_stream,
)


@pytest.mark.parametrize("mean", [0.003, 0.4, 3.0, 11.9, 12.1, 40.0, 900.0])
def test_poisson_numbers_follow_the_poisson_distribution(mean):
    counts = draw_poisson_array(np.full(60000, mean), 11)
    edges = np.unique(stats.poisson.ppf(np.linspace(0.02, 0.98, 15), mean))
    observed = np.diff(
        np.searchsorted(np.sort(counts), np.concatenate([[-np.inf], edges, [np.inf]]), side="right")
    )
    cumulative = np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]])
    expected = len(counts) * np.diff(cumulative)
    keep = expected > 1
    assert (
        stats.chisquare(observed[keep], expected[keep] * observed[keep].sum() / expected[keep].sum()).pvalue
        > 1e-4
    )


def test_poisson_variance_is_the_mean():
    means = np.repeat([0.1, 2.0, 20.0, 300.0], 50000)
    counts = draw_poisson_array(means, 5).reshape(4, -1)
    np.testing.assert_allclose(counts.mean(axis=1), [0.1, 2.0, 20.0, 300.0], rtol=0.02)
    np.testing.assert_allclose(counts.var(axis=1) / counts.mean(axis=1), 1, atol=0.03)


def test_a_mean_of_zero_gives_no_photon():
    assert not draw_poisson_array(np.array([0.0, -1.0]), 1).any()


def test_streams_of_neighbouring_rows_are_independent():
    draws = np.empty((300, 200))
    state = np.zeros(1, dtype=np.uint64)
    for row in range(len(draws)):
        start_stream(state, np.uint64(9), row)
        draws[row] = [draw_uniform(state) for _ in range(draws.shape[1])]
    assert len(np.unique(draws)) == draws.size
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-4
    lagged = [np.corrcoef(draws[:-1, : 200 - k].ravel(), draws[1:, k:].ravel())[0, 1] for k in range(3)]
    assert np.abs(lagged).max() < 4 / np.sqrt(draws.size)


def test_normal_numbers_are_normal_and_pairs_uncorrelated():
    state = np.zeros(1, dtype=np.uint64)
    start_stream(state, np.uint64(4), 0)
    pairs = np.array([draw_normal_pair(state) for _ in range(20000)])
    assert stats.kstest(pairs.ravel(), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.03
