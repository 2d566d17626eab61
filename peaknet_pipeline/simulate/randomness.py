"""Random numbers for the pixel loops: one independent stream per detector row, so that no order of work
changes a frame.

A stream is SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) started from a mixed (frame seed, row) pair. All
loops take the stream's state as a one-element uint64 array.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.types import Float64Array

GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
SHIFT_30, SHIFT_27, SHIFT_31, SHIFT_11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
TO_UNIT = 1.0 / 9007199254740992.0

SMALL_MEAN = 12.0
"""Below this mean, Poisson numbers are drawn by inversion; above, by rejection."""


@compiled
def mix(value: Any) -> Any:
    """Scramble 64 bits."""
    value = (value ^ (value >> SHIFT_30)) * MIX_1
    value = (value ^ (value >> SHIFT_27)) * MIX_2
    return value ^ (value >> SHIFT_31)


@compiled
def start_stream(state: npt.NDArray[np.uint64], seed: Any, row: int) -> None:
    """Start the stream of one row of one frame."""
    state[0] = mix(np.uint64(seed) ^ mix(np.uint64(row) * GAMMA + MIX_1))


@compiled
def draw_uniform(state: npt.NDArray[np.uint64]) -> float:
    """Draw a number in the open interval (0, 1)."""
    state[0] += GAMMA
    return (float(mix(state[0]) >> SHIFT_11) + 0.5) * TO_UNIT


@compiled
def draw_normal_pair(state: npt.NDArray[np.uint64]) -> tuple[float, float]:
    """Draw two independent standard normal numbers (Box & Muller 1958)."""
    radius = math.sqrt(-2.0 * math.log(draw_uniform(state)))
    angle = 2.0 * math.pi * draw_uniform(state)
    return radius * math.cos(angle), radius * math.sin(angle)


@compiled
def draw_poisson(state: npt.NDArray[np.uint64], mean: float) -> int:
    """Draw a Poisson number: inversion for small means, PTRS (Hörmann 1993) for large ones."""
    if mean <= 0.0:
        return 0
    if mean >= SMALL_MEAN:
        return _draw_large_poisson(state, mean)
    probability = math.exp(-mean)
    remaining, count = draw_uniform(state), 0
    while remaining > probability and count < 200:
        remaining -= probability
        count += 1
        probability *= mean / count
    return count


@compiled
def _draw_large_poisson(state: npt.NDArray[np.uint64], mean: float) -> int:
    log_mean = math.log(mean)
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_limit = 0.9277 - 3.6224 / (b - 2.0)
    while True:
        u, v = draw_uniform(state) - 0.5, draw_uniform(state)
        distance = 0.5 - abs(u)
        count = math.floor((2.0 * a / distance + b) * u + mean + 0.43)
        if distance >= 0.07 and v <= v_limit:
            return int(count)
        if count < 0 or (distance < 0.013 and v > distance):
            continue
        left = math.log(v * inverse_alpha / (a / (distance * distance) + b))
        if left <= count * log_mean - mean - math.lgamma(count + 1.0):
            return int(count)


@compiled
def draw_poisson_array(means: Float64Array, seed: int) -> Float64Array:
    """Draw one Poisson number per mean (n,), from the streams of rows 0 … n − 1."""
    state = np.zeros(1, dtype=np.uint64)
    counts = np.empty(len(means))
    for row in range(len(means)):
        start_stream(state, seed, row)
        counts[row] = draw_poisson(state, means[row])
    return counts
