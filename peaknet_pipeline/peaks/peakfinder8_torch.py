"""The device finder's passes in plain torch: they run wherever torch does, and need many passes over memory.

The pixels of each ring are gathered once into rows of `ROW` values, so that every clipping round is a reduction over
contiguous rows.
"""

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.geometry.usable import are_usable
from peaknet_pipeline.peaks.background import N_ROUNDS, START_LIMIT
from peaknet_pipeline.peaks.peakfinder8_device import Background, DevicePeakfinder8
from peaknet_pipeline.peaks.peakfinder8_search import NO_BACKGROUND_SIGMA
from peaknet_pipeline.peaks.rings import Int32Array, RingPlan
from peaknet_pipeline.types import IntArray

ROW = 256
"""Pixels per row of the gathered rings; a ring ends with a padded row."""


class TorchPeakfinder8(DevicePeakfinder8):
    """The device finder in plain torch."""

    def _prepare(self, plan: RingPlan) -> None:
        exact = self.params.statistics == "exact"
        start, pixels = (plan.start, plan.pixels) if exact else (plan.sample_start, plan.sample)
        rows, row_ring = _rows_of_rings(start, pixels)
        self._padding = torch.from_numpy(np.flatnonzero(rows < 0)).to(self.device)
        self._rows = torch.from_numpy(np.maximum(rows, 0).astype(np.int32).ravel()).to(self.device)
        self._row_ring = torch.from_numpy(row_ring).to(self.device)
        self._ring = torch.from_numpy(plan.ring.astype(np.int32)).to(self.device)
        self._disc = _disc(2 * self.params.local_bg_radius).to(self.device)

    def _rings_of(self, pixel: Tensor) -> Tensor:
        return self._ring[pixel].long()

    def _clip_rings(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and upper limit of every ring (n, n_rings + 1); the last, of unusable pixels, has no limit."""
        values = flat.index_select(1, self._rows)
        values[:, self._padding] = torch.nan
        values = torch.where(are_usable(values, self.usable), values, torch.nan)
        values = values.reshape(len(flat), -1, ROW)
        origin = self._origins(values)
        n_frames, n_rings = len(flat), self.n_rings
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
        first = torch.searchsorted(self._row_ring, torch.arange(self.n_rings, device=self.device))
        if not len(self._row_ring):
            return values.new_zeros((len(values), self.n_rings), dtype=torch.float64)
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

    def _choose(self, flat: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        bound = _single_above(upper, strict=True)[:, self._ring]
        above = (flat > bound) & are_usable(flat, self.usable)
        pixel = above.flatten().nonzero().squeeze(1)
        return pixel, flat.flatten()[pixel]

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

    def _background(
        self, flat: Tensor, mean: Tensor, upper: Tensor, frame: Tensor, panel: Tensor, ss: Tensor, fs: Tensor
    ) -> Background:
        """Mean, population σ and maximum in the disc about each centre; all inputs but the maps are (n,)."""
        _, n_ss, n_fs = self.shape
        y, x = ss[:, None] + self._disc[0], fs[:, None] + self._disc[1]
        on_panel = (y >= 0) & (y < n_ss) & (x >= 0) & (x < n_fs)
        i = (panel[:, None] * n_ss + y.clamp(0, n_ss - 1)) * n_fs + x.clamp(0, n_fs - 1)
        ring, value = self._ring[i].long(), flat[frame[:, None], i].double()
        taken = on_panel & (ring < self.n_rings) & (value < upper[frame[:, None], ring])
        taken &= are_usable(value, self.usable)
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
