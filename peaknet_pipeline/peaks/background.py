"""Radial background: the clipped mean and limits of every ring, from a single pass over the frame.

peakfinder8 clips each ring's mean and σ in five passes over the frame. The kernels here give the same
statistics from one: a small sample of each ring tells where the *core* of its values surely lies, one pass
sums the core and sets the few remaining pixels (candidates) aside, and the five clipping rounds then run over
the candidates alone. A ring whose limits turn out to cut into its core is gathered and clipped the plain way,
so the result never depends on the sample. Every pixel above its ring's final limit is a candidate, so that
the peak search needs no pass of its own.

Pixels are taken in single precision, as the C programs take them; sums are kept in double precision.
``limits`` is always (3, n_rings): each ring's mean, lower and upper limit.
"""

import numpy as np

from peaknet_pipeline.geometry.usable import is_usable
from peaknet_pipeline.peaks.compilation import REASSOCIATE, compiled
from peaknet_pipeline.peaks.rings import TILE_FS, TILE_SS, Int32Array, Pixels, RingPlan, Rules, UInt16Array
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array

N_ROUNDS = 5
"""Clipping rounds, fixed in every published peakfinder8."""

START_LIMIT = 1e9
"""Values beyond ± this never enter the first round."""

CORE_FRACTION = 0.7
"""Half width of a ring's core, as a part of the clipping distance that its sample suggests."""

MEAN, LOWER, UPPER = 0, 1, 2


@compiled(inline=True)
def _limits(n: float, total: float, square: float, origin: float, rules: Rules) -> tuple[float, float, float]:
    """Mean, lower and upper limit from count, Σ and Σ² about ``origin``; an empty ring has no limits."""
    if n == 0:
        return 0.0, -START_LIMIT, np.inf
    # Sums about an origin near the mean: Σ² - (Σ)²/n of large raw values would lose its digits.
    shift = total / n
    reach = rules.min_snr * np.sqrt(max(square / n - shift * shift, 0.0))
    mean = origin + shift
    return mean, mean - reach, max(mean + reach, rules.threshold)


@compiled()
def clip_values(values: Float32Array, rules: Rules) -> tuple[float, float, float]:
    """Clip one ring's values in five rounds, the plain way; returns mean, lower and upper limit."""
    mean, lower, upper = 0.0, -START_LIMIT, START_LIMIT
    origin = float(values[0]) if values.size else 0.0
    for _ in range(N_ROUNDS):
        n, total, square = 0, 0.0, 0.0
        for v in values:
            if lower < v < upper:
                n += 1
                total += v - origin
                square += (v - origin) * (v - origin)
        before_lower, before_upper = lower, upper
        mean, lower, upper = _limits(n, total, square, origin, rules)
        if lower == before_lower and upper == before_upper:
            break
    return mean, lower, upper


@compiled()
def clip_listed(
    frame: Pixels,
    start: Int32Array,
    pixels: Int32Array,
    chosen: BoolArray,
    rules: Rules,
    limits: Float64Array,
) -> None:
    """Set the ``limits`` of the ``chosen`` rings from their listed pixels alone, the plain way."""
    n_rings = start.size - 1
    longest = 0
    for r in range(n_rings):
        longest = max(longest, start[r + 1] - start[r] if chosen[r] else 0)
    values = np.empty(longest, np.float32)
    for r in range(n_rings):
        if chosen[r]:
            n = 0
            for i in pixels[start[r] : start[r + 1]]:
                v = np.float32(frame[i])
                if is_usable(v, rules.usable):
                    values[n] = v
                    n += 1
            limits[0, r], limits[1, r], limits[2, r] = clip_values(values[:n], rules)


@compiled()
def choose_core(plan: RingPlan, rules: Rules, limits: Float64Array, core: Float32Array) -> None:
    """Set ``core`` (3, n_rings): an open interval that no round should cut, and an origin for its sums.

    A sample without spread gives a core of one value. A ring that its sample holds completely keeps its
    limits, and its core is all that is not above them.
    """
    usable = rules.usable
    lowest = max(np.nextafter(np.float32(usable.low), np.float32(-np.inf)), -START_LIMIT)
    highest = min(np.nextafter(np.float32(usable.high), np.float32(np.inf)), START_LIMIT)
    for r in range(plan.n_rings):
        mean, lower, upper = limits[0, r], limits[1, r], limits[2, r]
        if _is_whole(plan, r):
            below, above = -START_LIMIT, upper
        else:
            half = CORE_FRACTION * (mean - lower)
            below, above = mean - half, max(mean + half, rules.threshold if half > 0 else mean)
            if half > 0:
                # An origin on a coarse binary grid: differences of whole counts and their sums stay exact.
                grid = 2.0 ** np.floor(np.log2(half))
                mean = np.rint(mean / grid) * grid
        below, above = max(below, lowest), min(above, highest)
        core[0, r], core[1, r], core[2, r] = below, above, mean
        if core[0, r] == core[1, r]:
            core[0, r] = np.nextafter(core[2, r], np.float32(-np.inf))
            core[1, r] = np.nextafter(core[2, r], np.float32(np.inf))
            continue
        if core[0, r] < below:
            core[0, r] = np.nextafter(core[0, r], np.float32(np.inf))
        if core[1, r] > above:
            core[1, r] = np.nextafter(core[1, r], np.float32(-np.inf))


@compiled(inline=True)
def _is_whole(plan: RingPlan, r: int) -> bool:
    """Whether a ring is so small that its sample holds all its pixels."""
    return bool(plan.start[r + 1] - plan.start[r] == plan.sample_start[r + 1] - plan.sample_start[r])


@compiled(fastmath=REASSOCIATE)
def sum_core(
    frame: Pixels,
    plan: RingPlan,
    first: int,
    last: int,
    core: Float32Array,
    rules: Rules,
    sums: Float64Array,
    outside: Int32Array,
    candidates: Int32Array,
    values: Float32Array,
) -> int:
    """Pass over tiles ``first`` to ``last``: sum each ring's core, list the usable rest, return its length.

    ``sums`` (2, n_rings) gains Σ and Σ² about the core's origin, ``outside`` the number of pixels that are
    not core, ``candidates`` and ``values`` the usable ones among them.
    """
    n_fs = plan.shape[2]
    origins, heights, widths, pixel_start, pixel, segment_start, segment_ring, segment_end = plan.tiles
    usable = rules.usable
    tile = np.empty(TILE_SS * TILE_FS, np.float32)
    ordered = np.empty(TILE_SS * TILE_FS, np.float32)
    n = 0
    for t in range(first, last):
        origin, width = origins[t], widths[t]
        inside = pixel[pixel_start[t] : pixel_start[t + 1]]
        _load_tile(frame, origin, n_fs, heights[t], width, inside, tile, ordered)
        begin = 0
        for s in range(segment_start[t], segment_start[t + 1]):
            r, end = segment_ring[s], segment_end[s]
            if core[0, r] < usable.gap_high and usable.gap_low < core[1, r]:
                total, square, count = _sum_around_gap(
                    ordered[begin:end], core[0, r], core[1, r], core[2, r], usable.gap_low, usable.gap_high
                )
            else:
                total, square, count = _sum_segment(ordered[begin:end], core[0, r], core[1, r], core[2, r])
            sums[0, r] += total
            sums[1, r] += square
            if count < end - begin:
                outside[r] += end - begin - int(count)
                for k in range(begin, end):
                    v = ordered[k]
                    if not core[0, r] < v < core[1, r] and is_usable(v, usable):
                        candidates[n] = origin + (inside[k] // width) * n_fs + inside[k] % width
                        values[n] = v
                        n += 1
            begin = end
    return n


@compiled(inline=True)
def _load_tile(
    frame: Pixels,
    origin: int,
    n_fs: int,
    height: int,
    width: int,
    inside: UInt16Array,
    tile: Float32Array,
    ordered: Float32Array,
) -> None:
    """Copy a tile from the frame in raster order, then its usable pixels in the order of their rings."""
    for y in range(height):
        # Loops over a view have an index that is plainly positive: only then does the compiler vectorize.
        source, target = (
            frame[origin + y * n_fs : origin + y * n_fs + width],
            tile[y * width : (y + 1) * width],
        )
        for x in range(width):
            target[x] = source[x]
    for k in range(inside.size):
        ordered[k] = tile[inside[k]]


@compiled(inline=True)
def _sum_segment(
    values: Float32Array, below: float, above: float, centre: float
) -> tuple[np.float32, np.float32, np.float32]:
    """Σ and Σ² about ``centre``, and the number, of the values between ``below`` and ``above``.

    The order of the statements matters: with the count after the sums the compiler pairs the two sums and
    gives up on the loop, which then takes four times as long.
    """
    total, square, count = np.float32(0), np.float32(0), np.float32(0)
    for k in range(values.size):
        v = values[k]
        d = v - centre
        is_core = (v > below) & (v < above)
        d = d if is_core else np.float32(0)
        count += np.float32(1) if is_core else np.float32(0)
        total += d
        square += d * d
    return total, square, count


@compiled(inline=True)
def _sum_around_gap(
    values: Float32Array, below: float, above: float, centre: float, gap_low: float, gap_high: float
) -> tuple[np.float32, np.float32, np.float32]:
    """Σ, Σ² and number as of :func:`_sum_segment`, without the values from ``gap_low`` to ``gap_high``."""
    total, square, count = np.float32(0), np.float32(0), np.float32(0)
    for k in range(values.size):
        v = values[k]
        d = v - centre
        is_core = (v > below) & (v < above) & ((v < gap_low) | (v > gap_high))
        d = d if is_core else np.float32(0)
        count += np.float32(1) if is_core else np.float32(0)
        total += d
        square += d * d
    return total, square, count


@compiled()
def clip_candidates(
    plan: RingPlan,
    rules: Rules,
    core: Float32Array,
    sums: Float64Array,
    outside: Int32Array,
    candidates: Int32Array,
    values: Float32Array,
    limits: Float64Array,
    failed: BoolArray,
) -> int:
    """Run the five rounds over core sums and candidates; returns how many rings ``failed``: a cut core."""
    sampled = limits.copy()
    work = np.empty((3, plan.n_rings), np.float64)
    failed[:] = False
    limits[0], limits[1], limits[2] = 0.0, -START_LIMIT, START_LIMIT
    for _ in range(N_ROUNDS):
        _begin_round(plan, core, sums, outside, limits, work, failed)
        for j in range(candidates.size):
            r = plan.ring[candidates[j]]
            if limits[1, r] < values[j] < limits[2, r]:
                d = float(values[j]) - core[2, r]
                work[0, r] += 1
                work[1, r] += d
                work[2, r] += d * d
        if not _end_round(work, core, rules, limits):
            break
    _begin_round(plan, core, sums, outside, limits, work, failed)
    for r in range(plan.n_rings):
        if _is_whole(plan, r):
            failed[r] = False
            limits[:, r] = sampled[:, r]
    return int(np.sum(failed))


@compiled()
def _begin_round(
    plan: RingPlan,
    core: Float32Array,
    sums: Float64Array,
    outside: Int32Array,
    limits: Float64Array,
    work: Float64Array,
    failed: BoolArray,
) -> None:
    """Start every ring's sums with its core, where the limits take it; mark the rings whose core they cut."""
    for r in range(plan.n_rings):
        n_core = plan.start[r + 1] - plan.start[r] - outside[r]
        below, above, value = core[0, r], core[1, r], core[2, r]
        if below < value < above and np.nextafter(below, above) == np.nextafter(above, below):
            inside = limits[1, r] < value < limits[2, r]
            cut = value > limits[2, r]
        else:
            inside = limits[1, r] <= below and above <= limits[2, r]
            cut = not inside
        failed[r] |= cut and n_core > 0
        work[0, r] = n_core if inside else 0
        work[1, r] = sums[0, r] if inside else 0.0
        work[2, r] = sums[1, r] if inside else 0.0


@compiled()
def _end_round(work: Float64Array, core: Float32Array, rules: Rules, limits: Float64Array) -> bool:
    """Move every ring's limits; returns whether any moved."""
    moved = False
    for r in range(core.shape[1]):
        mean, lower, upper = _limits(work[0, r], work[1, r], work[2, r], float(core[2, r]), rules)
        moved |= lower != limits[1, r] or upper != limits[2, r]
        limits[0, r], limits[1, r], limits[2, r] = mean, lower, upper
    return bool(moved)
