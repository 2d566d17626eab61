"""peakfinder8 in torch: a batch of frames stays on its device, and only peak lists come back.

The same rules as `peakfinder8.find_peaks`, arranged for a GPU: the pixels of each ring are gathered once into
rows of `ROW` values, so that every clipping round is a reduction over contiguous rows; pixels above their
limit, some thousands per frame, are compacted and joined into peaks by following their lowest neighbour. On
the CPU it runs too, slowly, and gives the same peaks. Sums may be taken in another order than there: where a
first centroid lies midway between two pixels, the local background may be centred on the other one.

Bytes per pixel of a float32 frame: 4 read and 4 + 4 for the gather (index and value) into rows, 4 in each of
five rounds if they were fused (some eight times that as separate kernels), 4 + 4 + 1 for the comparison with
the limits: 41 B fused, or 172 MB for a frame of 4.2 million pixels, 36 µs at 4.8 TB/s.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.peaks.background import N_ROUNDS, START_LIMIT
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.peakfinder8_frame import peak_table, single_range
from peaknet_pipeline.peaks.peakfinder8_search import NO_BACKGROUND_SIGMA
from peaknet_pipeline.peaks.rings import Int32Array, plan_rings
from peaknet_pipeline.types import BoolArray, Float32Array, IntArray, PeakTable

ROW = 256
"""Pixels per row of the gathered rings; a ring ends with a padded row."""

JUMPS = 8
"""Rounds of joining neighbours between two looks at whether anything still changes."""


@dataclass(frozen=True)
class PeakBatch:
    """Peaks of a batch on its device: ``frame`` (n,) int64 and ``rows`` (n, 9) float64, in the columns of
    `peakfinder8_search.NAMES`."""

    frame: Tensor
    rows: Tensor
    n_frames: int

    def to_table(self, first_frame: int = 0) -> PeakTable:
        """Copy the peaks to the host as a peak table."""
        frame, rows = self.frame.cpu().numpy(), self.rows.cpu().numpy()
        edges = np.searchsorted(frame, np.arange(self.n_frames + 1))
        return peak_table([rows[begin:end] for begin, end in pairwise(edges)], first_frame)


class TorchPeakfinder8:
    """peakfinder8 prepared on a device for one detector, mask and parameter set, as `Peakfinder8` is."""

    def __init__(
        self,
        radius: Float32Array,
        bad_pixels: BoolArray,
        params: Peakfinder8Params,
        *,
        device: str | torch.device = "cuda",
        valid_range: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        self.params, self.device = params, torch.device(device)
        self._low, self._high = single_range(*valid_range)
        plan = plan_rings(
            radius, bad_pixels, min_radius=params.min_res, max_radius=params.max_res,
            sample_size=params.sample_size,
        )  # fmt: skip
        self.shape, self._n_rings = plan.shape, plan.n_rings
        exact = params.statistics == "exact"
        start, pixels = (plan.start, plan.pixels) if exact else (plan.sample_start, plan.sample)
        rows, row_ring = _rows_of_rings(start, pixels)
        self._padding = torch.from_numpy(np.flatnonzero(rows < 0)).to(self.device)
        self._rows = torch.from_numpy(np.maximum(rows, 0).astype(np.int32).ravel()).to(self.device)
        self._row_ring = torch.from_numpy(row_ring).to(self.device)
        self._ring = torch.from_numpy(plan.ring.astype(np.int32)).to(self.device)
        self._disc = _disc(2 * params.local_bg_radius).to(self.device)

    @torch.no_grad()
    def find(self, frames: Tensor) -> PeakBatch:
        """Find the peaks of ``frames`` (n, n_panels, ss, fs), any real dtype, on the finder's device."""
        if frames.ndim != 4 or tuple(frames.shape[1:]) != self.shape:
            raise RunError(
                "frames do not fit the radius map", expected=("n", *self.shape), found=tuple(frames.shape)
            )
        flat = frames.reshape(len(frames), -1).to(self.device, torch.float32)
        mean, upper = self._clip_rings(flat)
        pixel = self._pixels_above(flat, upper)
        peak, first_seed = self._join(pixel)
        return self._measure(flat, mean, upper, pixel, peak, first_seed)

    def _clip_rings(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and upper limit of every ring (n, n_rings + 1); the last, of unusable pixels, has no limit."""
        values = flat.index_select(1, self._rows)
        values[:, self._padding] = torch.nan
        values = torch.where((values >= self._low) & (values <= self._high), values, torch.nan)
        values = values.reshape(len(flat), -1, ROW)
        origin = self._origins(values)
        n_frames, n_rings = len(flat), self._n_rings
        mean = flat.new_zeros((n_frames, n_rings), dtype=torch.float64)
        lower, upper = mean - START_LIMIT, mean + START_LIMIT
        for _ in range(N_ROUNDS):
            count, total, square = self._sum_rows(values, origin, lower, upper)
            shift = total / count
            reach = self.params.min_snr * (square / count - shift * shift).clamp(min=0).sqrt()
            some = count > 0
            mean = torch.where(some, origin + shift, 0.0)
            lower = torch.where(some, mean - reach, -START_LIMIT)
            upper = torch.where(some, (mean + reach).clamp(min=self.params.threshold), torch.inf)
        outside = upper.new_full((n_frames, 1), torch.inf)
        return torch.cat([mean, torch.zeros_like(outside)], 1), torch.cat([upper, outside], 1)

    def _origins(self, values: Tensor) -> Tensor:
        """Whole numbers near each ring's middle (n, n_rings), about which sums stay exact for counts."""
        first = torch.searchsorted(self._row_ring, torch.arange(self._n_rings, device=self.device))
        if not len(self._row_ring):
            return values.new_zeros((len(values), self._n_rings), dtype=torch.float64)
        middle = values[:, first.clamp(max=len(self._row_ring) - 1)].nanmedian(dim=2).values
        return middle.nan_to_num().round().double()

    def _sum_rows(
        self, values: Tensor, origin: Tensor, lower: Tensor, upper: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Count, Σ and Σ² about the origin of each ring's values strictly between its limits."""
        ring = self._row_ring
        below, above = _single_below(lower)[:, ring, None], _single_above(upper)[:, ring, None]
        inside = (values > below) & (values < above)
        d = torch.where(inside, values - origin.float()[:, ring, None], 0.0)
        parts = [part.sum(2, dtype=torch.float64) for part in (inside, d, d * d)]
        sums = [torch.zeros_like(origin).index_add_(1, ring, part) for part in parts]
        return sums[0], sums[1], sums[2]

    def _pixels_above(self, flat: Tensor, upper: Tensor) -> Tensor:
        """Sorted numbers (k,), over the whole batch, of the usable pixels above their ring's limit."""
        bound = _single_above(upper, strict=True)[:, self._ring]
        above = (flat > bound) & (flat >= self._low) & (flat <= self._high)
        return above.flatten().nonzero().squeeze(1)

    def _join(self, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Join 8-connected pixels; returns each pixel's group, and each group's first seed (2⁶²: none)."""
        neighbours = self._neighbours(pixel)
        label = torch.arange(len(pixel), device=pixel.device)
        before = None
        while before is None or not torch.equal(before, label):
            before = label
            for _ in range(JUMPS):
                label = label[neighbours].amin(1) if len(label) else label
                label = label[label]
        roots, peak = torch.unique(label, return_inverse=True)
        _, _, ss, fs = self._locate(pixel)
        n_ss, n_fs = self.shape[1:]
        is_seed = (ss > 0) & (ss < n_ss - 1) & (fs > 0) & (fs < n_fs - 1)
        none = torch.full_like(roots, 2**62)
        first_seed = none.scatter_reduce(0, peak, torch.where(is_seed, pixel, 2**62), "amin")
        return peak, first_seed

    def _locate(self, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frame, panel, ss and fs of numbered pixels."""
        n_panels, n_ss, n_fs = self.shape
        row = pixel // n_fs
        panel = row // n_ss
        return panel // n_panels, panel % n_panels, row % n_ss, pixel % n_fs

    def _neighbours(self, pixel: Tensor) -> Tensor:
        """Positions in the list (k, 9) of each pixel's neighbours that are in the list, else its own."""
        n_ss, n_fs = self.shape[1:]
        _, _, ss, fs = self._locate(pixel)
        own = torch.arange(len(pixel), device=pixel.device)
        columns = [own]
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            wanted = pixel + dy * n_fs + dx
            place = torch.searchsorted(pixel, wanted).clamp(max=max(len(pixel) - 1, 0))
            on_panel = (ss + dy >= 0) & (ss + dy < n_ss) & (fs + dx >= 0) & (fs + dx < n_fs)
            columns.append(torch.where(on_panel & (pixel[place] == wanted), place, own))
        return torch.stack(columns, 1)

    def _measure(
        self, flat: Tensor, mean: Tensor, upper: Tensor, pixel: Tensor, peak: Tensor, first_seed: Tensor
    ) -> PeakBatch:
        """Measure every joined group and keep the peaks, in frame, panel and raster order of their seeds."""
        p, n = self.params, len(first_seed)

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(n).index_add_(0, peak, values)

        frame, _, ss, fs = self._locate(pixel)
        value = flat.flatten()[pixel].double()
        ring = self._ring[pixel % flat.shape[1]].long()
        weight = (value - mean[frame, ring]).abs()
        count, raw = total(torch.ones_like(value)), total(value)
        centre = [(total(weight * x) / total(weight)).nan_to_num().round().long() for x in (ss, fs)]
        at = first_seed.clamp(max=flat.numel() - 1) if n else first_seed
        frame_of, panel_of, _, _ = self._locate(at)
        level, sigma, highest = self._local_background(flat, mean, upper, frame_of, panel_of, *centre)
        top = value.new_full((n,), -torch.inf).scatter_reduce(0, peak, value, "amax")
        intensity = raw - count * level
        snr = torch.where(sigma > 0, intensity / sigma, 0.0)
        at_ss, at_fs = total(value * ss) / raw, total(value * fs) / raw
        keep = (first_seed < 2**62) & (count >= p.min_pix) & (count <= p.max_pix) & (snr >= p.min_snr)
        keep &= (top >= highest) & (at_ss >= 0) & (at_ss <= self.shape[1] - 1)
        keep &= (at_fs >= 0) & (at_fs <= self.shape[2] - 1)
        columns = (panel_of.double(), at_fs, at_ss, intensity, top - level, level, sigma, snr, count)
        rows = torch.stack(columns, 1)[keep]
        order = torch.argsort(first_seed[keep])
        return self._first_peaks(frame_of[keep][order], rows[order], len(flat))

    def _first_peaks(self, frame: Tensor, rows: Tensor, n_frames: int) -> PeakBatch:
        """Keep each frame's first ``max_peaks`` peaks."""
        rank = torch.arange(len(frame), device=frame.device) - torch.searchsorted(frame, frame)
        keep = rank < self.params.max_peaks
        return PeakBatch(frame[keep], rows[keep], n_frames)

    def _local_background(
        self, flat: Tensor, mean: Tensor, upper: Tensor, frame: Tensor, panel: Tensor, ss: Tensor, fs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, population σ and maximum in the disc about each centre; all inputs but the maps are (n,)."""
        _, n_ss, n_fs = self.shape
        y, x = ss[:, None] + self._disc[0], fs[:, None] + self._disc[1]
        on_panel = (y >= 0) & (y < n_ss) & (x >= 0) & (x < n_fs)
        i = (panel[:, None] * n_ss + y.clamp(0, n_ss - 1)) * n_fs + x.clamp(0, n_fs - 1)
        ring, value = self._ring[i].long(), flat[frame[:, None], i].double()
        taken = on_panel & (ring < self._n_rings) & (value < upper[frame[:, None], ring])
        taken &= (value >= self._low) & (value <= self._high)
        value = torch.where(taken, value, 0.0)
        n = taken.sum(1)
        level = value.sum(1) / n
        sigma = (torch.where(taken, value - level[:, None], 0.0).square().sum(1) / n).sqrt()
        highest = torch.where(taken, value, -torch.inf).amax(1) if len(n) else level
        middle = mean[frame, self._ring[(panel * n_ss + ss) * n_fs + fs].long()]
        none = n == 0
        return (
            torch.where(none, middle, level),
            torch.where(none, NO_BACKGROUND_SIGMA, sigma),
            torch.where(none, middle, highest),
        )


def _rows_of_rings(start: Int32Array, pixels: Int32Array) -> tuple[IntArray, IntArray]:
    """Lay each ring's pixels out in rows of `ROW`, padded with -1; returns them and each row's ring."""
    n_rows = -(-np.diff(start) // ROW)
    row_ring = np.repeat(np.arange(len(n_rows)), n_rows)
    rows = np.full((len(row_ring), ROW), -1, np.int64)
    ring = np.repeat(np.arange(len(n_rows)), np.diff(start))
    first_row = np.concatenate([[0], np.cumsum(n_rows)])[:-1]
    rank = np.arange(len(pixels)) - start[ring]
    rows[first_row[ring] + rank // ROW, rank % ROW] = pixels
    return rows, row_ring


def _disc(reach: int) -> Tensor:
    """Offsets (2, n) in ss and fs of the square [-reach, reach - 1]² within the distance ``reach``."""
    y, x = np.mgrid[-reach:reach, -reach:reach]
    near = y * y + x * x <= reach * reach
    return torch.from_numpy(np.stack([y[near], x[near]]))


def _single_above(limit: Tensor, *, strict: bool = False) -> Tensor:
    """Single-precision bound b with: v < b (``strict``: not v > b) exactly when v < limit (not v > limit)."""
    single = limit.float()
    wrong = single.double() > limit if strict else single.double() < limit
    towards = torch.full_like(single, -torch.inf if strict else torch.inf)
    return torch.where(wrong, torch.nextafter(single, towards), single)


def _single_below(limit: Tensor) -> Tensor:
    """Single-precision bound b with: v > b exactly when v > limit."""
    return _single_above(limit, strict=True)
