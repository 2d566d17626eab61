"""The device finder's passes as Triton kernels: two reads of every frame, whatever its type, and nothing else of its size.

One program holds one ring of one frame in registers through all five clipping rounds; a ring too long for that is gathered
anew in each round. A second pass compares every pixel with its ring's limit and lists the few above. Frames run fastest in the
grids, so that pixel numbers and ring numbers come from memory once per batch.

Sums are in double precision. The module needs Triton; with ``TRITON_INTERPRET=1`` set before its import the kernels run,
slowly, on the CPU.
"""

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from peaknet_pipeline.peaks.background import N_ROUNDS, START_LIMIT
from peaknet_pipeline.peaks.peakfinder8_device import Background, DevicePeakfinder8
from peaknet_pipeline.peaks.peakfinder8_search import NO_BACKGROUND_SIGMA
from peaknet_pipeline.peaks.rings import RingPlan
from peaknet_pipeline.types import IntArray

IN_PLACE = (torch.float32, torch.uint16, torch.int16, torch.int32)
"""Pixel types that the kernels read as they are."""

MAX_IN_REGISTERS = 16384
"""Pixels of the longest ring that one program holds."""

MIN_BLOCK = 128
PIXELS_PER_WARP = 1024
SCAN_BLOCK = 1024
LIST_BLOCK = 256
EXPECTED_SHARE = 64
"""One pixel in this many is expected above its limit; with more, the second pass is repeated with more room."""


@triton.jit
def _next_limits(
    n: Any, total: Any, square: Any, origin: Any, min_snr: Any, threshold: Any, start: tl.constexpr
) -> Any:
    """Mean, lower and upper limit from count, Σ and Σ² about ``origin``; an empty ring has no limits."""
    shift = total / tl.maximum(n, 1.0)
    reach = min_snr * tl.sqrt(tl.maximum(square / tl.maximum(n, 1.0) - shift * shift, 0.0))
    mean = tl.where(n > 0, origin + shift, 0.0)
    lower = tl.where(n > 0, mean - reach, -start)
    upper = tl.where(n > 0, tl.maximum(mean + reach, threshold), float("inf"))
    return mean, lower, upper


@triton.jit
def _is_usable(value: Any, low: Any, high: Any, gap_low: Any, gap_high: Any) -> Any:
    """Whether single-precision values are usable, as ``geometry.usable.is_usable`` tells."""
    return (value >= low) & (value <= high) & ((value < gap_low) | (value > gap_high))


@triton.jit
def _load_ring(
    frame: Any, pixels: Any, at: Any, end: Any, low: Any, high: Any, gap_low: Any, gap_high: Any
) -> Any:
    """Values (double precision) of listed pixels, and which of them may be used."""
    index = tl.load(pixels + at, mask=at < end, other=0)
    value = tl.load(frame + index, mask=at < end, other=0).to(tl.float32)
    usable = (at < end) & _is_usable(value, low, high, gap_low, gap_high)
    return tl.where(usable, value, 0.0).to(tl.float64), usable


@triton.jit
def _first_usable(value: Any, usable: Any, BLOCK: tl.constexpr) -> Any:
    """Value of the first usable pixel, about which the sums are taken; 0 without any."""
    place = tl.arange(0, BLOCK)
    first = tl.min(tl.where(usable, place, BLOCK), axis=0)
    return tl.sum(tl.where(place == first, value, 0.0), axis=0)


@triton.jit
def _clip_short_rings(
    frames: Any, pixels: Any, start: Any, rings: Any, rules: Any, mean_out: Any, upper_out: Any, n_pixels: Any,
    n_limits: Any, low: Any, high: Any, gap_low: Any, gap_high: Any,
    ROUNDS: tl.constexpr, START: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Clip one ring of one frame, held in registers."""
    frame = tl.program_id(0).to(tl.int64)
    ring = tl.load(rings + tl.program_id(1))
    at = tl.load(start + ring) + tl.arange(0, BLOCK)
    value, usable = _load_ring(
        frames + frame * n_pixels, pixels, at, tl.load(start + ring + 1), low, high, gap_low, gap_high
    )
    origin = _first_usable(value, usable, BLOCK)
    min_snr, threshold = tl.load(rules), tl.load(rules + 1)
    mean = tl.full([], 0.0, tl.float64)
    lower = tl.full([], -START, tl.float64)
    upper = tl.full([], START, tl.float64)
    for _ in range(ROUNDS):
        taken = usable & (value > lower) & (value < upper)
        d = tl.where(taken, value - origin, 0.0)
        n = tl.sum(taken.to(tl.int32), axis=0).to(tl.float64)
        mean, lower, upper = _next_limits(
            n, tl.sum(d, axis=0), tl.sum(d * d, axis=0), origin, min_snr, threshold, START
        )
    tl.store(mean_out + frame * n_limits + ring, mean)
    tl.store(upper_out + frame * n_limits + ring, upper)


@triton.jit
def _clip_long_rings(
    frames: Any, pixels: Any, start: Any, rings: Any, rules: Any, mean_out: Any, upper_out: Any, n_pixels: Any,
    n_limits: Any, low: Any, high: Any, gap_low: Any, gap_high: Any,
    ROUNDS: tl.constexpr, START: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Clip one ring of one frame, gathered anew in every round."""
    frame = tl.program_id(0).to(tl.int64)
    ring = tl.load(rings + tl.program_id(1))
    begin, end = tl.load(start + ring), tl.load(start + ring + 1)
    place = tl.arange(0, BLOCK)
    first, usable = _load_ring(
        frames + frame * n_pixels, pixels, begin + place, end, low, high, gap_low, gap_high
    )
    origin = _first_usable(first, usable, BLOCK)
    min_snr, threshold = tl.load(rules), tl.load(rules + 1)
    mean = tl.full([], 0.0, tl.float64)
    lower = tl.full([], -START, tl.float64)
    upper = tl.full([], START, tl.float64)
    for _ in range(ROUNDS):
        n = tl.full([], 0.0, tl.float64)
        total = tl.full([], 0.0, tl.float64)
        square = tl.full([], 0.0, tl.float64)
        for chunk in range(begin, end, BLOCK):
            value, good = _load_ring(
                frames + frame * n_pixels, pixels, chunk + place, end, low, high, gap_low, gap_high
            )
            taken = good & (value > lower) & (value < upper)
            d = tl.where(taken, value - origin, 0.0)
            n += tl.sum(taken.to(tl.int32), axis=0).to(tl.float64)
            total += tl.sum(d, axis=0)
            square += tl.sum(d * d, axis=0)
        mean, lower, upper = _next_limits(n, total, square, origin, min_snr, threshold, START)
    tl.store(mean_out + frame * n_limits + ring, mean)
    tl.store(upper_out + frame * n_limits + ring, upper)


@triton.jit
def _list_above(
    frames: Any, ring: Any, upper: Any, counter: Any, keys: Any, values: Any, n_pixels: Any, n_limits: Any, room: Any,
    low: Any, high: Any, gap_low: Any, gap_high: Any, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Append the pixels above their ring's limit to ``keys`` (number within the batch) and ``values``, in any order."""
    frame = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n_pixels
    value = tl.load(frames + frame * n_pixels + i, mask=inside, other=0).to(tl.float32)
    number = tl.load(ring + i, mask=inside, other=0).to(tl.int32)
    limit = tl.load(upper + frame * n_limits + number, mask=inside, other=float("inf"))
    above = inside & _is_usable(value, low, high, gap_low, gap_high) & (value.to(tl.float64) > limit)
    n = tl.sum(above.to(tl.int32), axis=0)
    if n > 0:
        place = tl.atomic_add(counter, n) + tl.cumsum(above.to(tl.int32), axis=0) - 1
        tl.store(keys + place, frame * n_pixels + i, mask=above & (place < room))
        tl.store(values + place, value, mask=above & (place < room))


@triton.jit
def _find_neighbours(
    pixel: Any, neighbours: Any, n: Any, n_steps: Any, n_ss: Any, n_fs: Any, BLOCK: tl.constexpr
) -> None:
    """Look the eight neighbours of each listed pixel up in the sorted list; its own place where they aren't there."""
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    listed = own < n
    key = tl.load(pixel + own, mask=listed, other=0)
    fs, ss = key % n_fs, (key // n_fs) % n_ss
    for k in tl.static_range(9):
        dy, dx = k // 3 - 1, k % 3 - 1
        wanted = key + dy * n_fs + dx
        first, last = tl.zeros_like(own), tl.zeros_like(own) + n
        for _ in range(n_steps):
            middle = (first + last) // 2
            less = tl.load(pixel + middle, mask=listed & (first < last), other=0) < wanted
            step = first < last
            first = tl.where(step & less, middle + 1, first)
            last = tl.where(step & (less == 0), middle, last)
        found = tl.load(pixel + first, mask=listed & (first < n), other=-1) == wanted
        found = found & (ss + dy >= 0) & (ss + dy < n_ss) & (fs + dx >= 0) & (fs + dx < n_fs)
        tl.store(neighbours + own * 9 + k, tl.where(found, first, own).to(tl.int64), mask=listed)


@triton.jit
def _measure_discs(
    frames: Any, ring: Any, upper: Any, frame_of: Any, panel_of: Any, ss_of: Any, fs_of: Any, out: Any, n_pixels: Any,
    n_limits: Any, n_ss: Any, n_fs: Any, low: Any, high: Any, gap_low: Any, gap_high: Any,
    REACH: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Count, mean, population σ and maximum of the background pixels in the disc about one centre."""
    peak = tl.program_id(0).to(tl.int64)
    frame, panel = tl.load(frame_of + peak), tl.load(panel_of + peak)
    place = tl.arange(0, BLOCK)
    dy, dx = place // (2 * REACH) - REACH, place % (2 * REACH) - REACH
    y, x = tl.load(ss_of + peak) + dy, tl.load(fs_of + peak) + dx
    inside = (place < 4 * REACH * REACH) & (dy * dy + dx * dx <= REACH * REACH)
    inside = inside & (y >= 0) & (y < n_ss) & (x >= 0) & (x < n_fs)
    i = (panel * n_ss + y) * n_fs + x
    value = tl.load(frames + frame * n_pixels + i, mask=inside, other=0).to(tl.float32)
    number = tl.load(ring + i, mask=inside, other=0).to(tl.int32)
    limit = tl.load(upper + frame * n_limits + number, mask=inside, other=0.0)
    # An unusable pixel has the last ring's number, whose limit is infinite.
    taken = inside & (number < n_limits - 1) & _is_usable(value, low, high, gap_low, gap_high)
    taken = taken & (value.to(tl.float64) < limit)
    exact = tl.where(taken, value, 0.0).to(tl.float64)
    n = tl.sum(taken.to(tl.int32), axis=0).to(tl.float64)
    mean = tl.sum(exact, axis=0) / tl.maximum(n, 1.0)
    d = tl.where(taken, exact - mean, 0.0)
    tl.store(out + peak * 4, n)
    tl.store(out + peak * 4 + 1, mean)
    tl.store(out + peak * 4 + 2, tl.sqrt(tl.sum(d * d, axis=0) / tl.maximum(n, 1.0)))
    tl.store(out + peak * 4 + 3, tl.max(tl.where(taken, value, float("-inf")), axis=0).to(tl.float64))


class TritonPeakfinder8(DevicePeakfinder8):
    """The device finder with Triton kernels."""

    def _prepare(self, plan: RingPlan) -> None:
        exact = self.params.statistics == "exact"
        start, pixels = (plan.start, plan.pixels) if exact else (plan.sample_start, plan.sample)
        self._start, self._pixels = (torch.from_numpy(a).to(self.device) for a in (start, pixels))
        self._ring = torch.from_numpy(plan.ring).to(self.device)
        self._wide_ring = torch.from_numpy(plan.ring.astype(np.int32)).to(self.device)
        self._rules = torch.tensor([self.params.min_snr, self.params.threshold], dtype=torch.float64).to(
            self.device
        )
        self._classes = [
            (block, torch.from_numpy(rings.astype(np.int32)).to(self.device))
            for block, rings in _size_classes(np.diff(start))
        ]

    def bytes_moved(self, n_frames: int, itemsize: int) -> int:
        """Bytes per frame that the two passes must take from memory: the frame twice; the plan once per batch."""
        plan = sum(t.numel() * t.element_size() for t in (self._pixels, self._ring))
        return 2 * itemsize * self.n_pixels + plan // n_frames

    def _load(self, frames: Tensor) -> Tensor:
        flat = frames.reshape(len(frames), -1).to(self.device)
        return (flat if flat.dtype in IN_PLACE else flat.to(torch.float32)).contiguous()

    def _clip_rings(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        n_limits = self.n_rings + 1
        mean = torch.zeros((len(flat), n_limits), dtype=torch.float64, device=self.device)
        upper = torch.full_like(mean, torch.inf)
        for block, rings in self._classes:
            kernel = _clip_short_rings if block <= MAX_IN_REGISTERS else _clip_long_rings
            size = min(block, MAX_IN_REGISTERS)
            kernel[(len(flat), len(rings))](
                flat, self._pixels, self._start, rings, self._rules, mean, upper, self.n_pixels, n_limits,
                *self.usable, ROUNDS=N_ROUNDS, START=START_LIMIT, BLOCK=size, num_warps=_warps(size),
            )  # fmt: skip
        return mean, upper

    def _choose(self, flat: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        room = max(SCAN_BLOCK, flat.numel() // EXPECTED_SHARE)
        while True:
            counter = torch.zeros(1, dtype=torch.int32, device=self.device)
            keys = torch.empty(room, dtype=torch.int64, device=self.device)
            values = torch.empty(room, dtype=torch.float32, device=self.device)
            _list_above[(len(flat), -(-self.n_pixels // SCAN_BLOCK))](
                flat, self._ring, upper, counter, keys, values, self.n_pixels, self.n_rings + 1, room,
                *self.usable, BLOCK=SCAN_BLOCK, num_warps=4,
            )  # fmt: skip
            n = int(counter)
            if n <= room:
                pixel, order = torch.sort(keys[:n])
                return pixel, values[:n][order]
            room = n

    def _neighbours(self, pixel: Tensor) -> Tensor:
        n = len(pixel)
        neighbours = torch.empty((n, 9), dtype=torch.int64, device=self.device)
        _find_neighbours[(-(-n // LIST_BLOCK),)](
            pixel, neighbours, n, n.bit_length(), self.shape[1], self.shape[2], BLOCK=LIST_BLOCK
        )
        return neighbours

    def _background(
        self, flat: Tensor, mean: Tensor, upper: Tensor, frame: Tensor, panel: Tensor, ss: Tensor, fs: Tensor
    ) -> Background:
        found = torch.zeros((len(frame), 4), dtype=torch.float64, device=self.device)
        reach = 2 * self.params.local_bg_radius
        if len(frame):
            _measure_discs[(len(frame),)](
                flat, self._ring, upper, frame, panel, ss, fs, found, self.n_pixels, self.n_rings + 1, self.shape[1],
                self.shape[2], *self.usable, REACH=reach, BLOCK=triton.next_power_of_2(4 * reach * reach),
            )  # fmt: skip
        n, level, sigma, highest = found.unbind(1)
        centre = (panel * self.shape[1] + ss) * self.shape[2] + fs
        middle = mean[frame, self._rings_of(centre)]
        none = n == 0
        return (
            torch.where(none, middle, level),
            torch.where(none, NO_BACKGROUND_SIGMA, sigma),
            torch.where(none, middle, highest),
        )

    def _rings_of(self, pixel: Tensor) -> Tensor:
        return self._wide_ring[pixel].long()


def _size_classes(lengths: IntArray) -> list[tuple[int, IntArray]]:
    """Sort rings by the power of two that holds them; returns each power with its rings, the longest first."""
    blocks = np.maximum(2 ** np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64), MIN_BLOCK)
    blocks = np.minimum(blocks, 2 * MAX_IN_REGISTERS)
    used = lengths > 0
    return [(int(b), np.flatnonzero(used & (blocks == b))) for b in np.unique(blocks[used])[::-1]]


def _warps(block: int) -> int:
    return int(np.clip(block // PIXELS_PER_WARP, 1, 16))
