"""peakfinder8 on a device: a batch of frames stays there, and only peak lists come back.

The same rules as `peakfinder8.find_peaks`. Two passes over the frames, the ring statistics and the choice of the pixels above
their ring's limit, belong to the subclasses: plain torch (`peakfinder8_torch`) and Triton (`peakfinder8_triton`). What follows
works on the chosen pixels alone, some thousands per frame: they are joined into peaks by following their lowest neighbour, and
measured. Sums may be taken in another order than on the CPU: where a first centroid lies midway between two pixels, the local
background may be centred on the other one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.peaks.peakfinder8_frame import as_kernel_input, check_frames, peak_table
from peaknet_pipeline.peaks.peakfinder8_search import N_COLUMNS
from peaknet_pipeline.peaks.rings import RingPlan, plan_rings
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray

JUMPS = 8
"""Rounds of joining neighbours between two looks at whether anything still changes."""

NO_SEED = 2**62
"""Stands for the first seed of a group that has none."""


Background = tuple[Tensor, Tensor, Tensor]
"""Mean, population σ and maximum of local backgrounds, (n,) float64 each."""


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


class DevicePeakfinder8(ABC):
    """peakfinder8 prepared on a device for one detector, mask and parameter set, as `Peakfinder8` is."""

    def __init__(
        self,
        radius: Float32Array,
        bad_pixels: BoolArray,
        params: Peakfinder8Params,
        *,
        device: str | torch.device = "cuda",
        usable: UsableValues = ALL_VALUES,
    ) -> None:
        self.params, self.device = params, torch.device(device)
        self._given, self.usable = usable, usable
        plan = plan_rings(
            radius, bad_pixels, min_radius=params.min_res, max_radius=params.max_res,
            sample_size=params.sample_size,
        )  # fmt: skip
        self.shape, self.n_rings = plan.shape, plan.n_rings
        self.n_pixels = int(np.prod(plan.shape))
        self._prepare(plan)

    @abstractmethod
    def _prepare(self, plan: RingPlan) -> None:
        """Put what the passes need on the device."""

    @abstractmethod
    def _clip_rings(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and upper limit of every ring (n, n_rings + 1); the last, of unusable pixels, has no limit."""

    @abstractmethod
    def _choose(self, flat: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Sorted numbers (k,), over the whole batch, of the usable pixels above their ring's limit, and their values."""

    @abstractmethod
    def _neighbours(self, pixel: Tensor) -> Tensor:
        """Positions in the list (k, 9) of each pixel's neighbours that are in the list, else its own."""

    @abstractmethod
    def _background(
        self, flat: Tensor, mean: Tensor, upper: Tensor, frame: Tensor, panel: Tensor, ss: Tensor, fs: Tensor
    ) -> Background:
        """Mean, population σ and maximum in the disc about each centre; all inputs but the first three are (n,)."""

    @abstractmethod
    def _rings_of(self, pixel: Tensor) -> Tensor:
        """Ring number, int64, of each pixel of the stack."""

    def bytes_moved(self, n_frames: int, itemsize: int) -> int:
        """Bytes per frame that the passes must take from memory at least, in a batch of ``n_frames``; 0: not told."""
        return 0

    def _load(self, frames: Tensor) -> Tensor:
        """Return the frames (n, n_pixels) on the device, in a type that the passes take."""
        return frames.reshape(len(frames), -1).to(self.device, torch.float32)

    def find_table(self, frames: FrameArray, first_frame: int = 0) -> PeakTable:
        """Find the peaks of frames (n, n_panels, ss, fs) on the host; the same table as `Peakfinder8.find`.

        Raises
        ------
        RunError
            The frames do not fit the radius map or are not numbers.

        """
        check_frames(frames, self.shape)
        pixels = as_kernel_input(frames)
        on_host = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        return self.find(on_host.to(self.device)).to_table(first_frame)

    @torch.no_grad()
    def find(self, frames: Tensor) -> PeakBatch:
        """Find the peaks of ``frames`` (n, n_panels, ss, fs), any real dtype, on the finder's device.

        Raises
        ------
        RunError
            The frames do not fit the radius map.

        """
        if frames.ndim != 4 or tuple(frames.shape[1:]) != self.shape:
            raise RunError(
                "frames do not fit the radius map", expected=("n", *self.shape), found=tuple(frames.shape)
            )
        self.usable = self._given.of(str(frames.dtype).removeprefix("torch."))
        flat = self._load(frames)
        mean, upper = self._clip_rings(flat)
        pixel, value = self._choose(flat, upper)
        if not len(pixel):
            empty = pixel.new_zeros(0)
            return PeakBatch(empty, mean.new_zeros((0, N_COLUMNS)), len(flat))
        peak, first_seed = self._join(pixel)
        return self._measure(flat, mean, upper, pixel, value.double(), peak, first_seed)

    def _join(self, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Join 8-connected pixels; returns each pixel's group, and each group's first seed (or `NO_SEED`)."""
        neighbours = self._neighbours(pixel)
        own = torch.arange(len(pixel), device=pixel.device)
        label, before = own, None
        while before is None or not torch.equal(before, label):
            before = label
            for _ in range(JUMPS):
                label = label[neighbours].amin(1)
                label = label[label]
        number = torch.cumsum(label == own, 0) - 1
        peak = number[label]
        _, _, ss, fs = self._locate(pixel)
        n_ss, n_fs = self.shape[1:]
        is_seed = (ss > 0) & (ss < n_ss - 1) & (fs > 0) & (fs < n_fs - 1)
        none = pixel.new_full((int(number[-1]) + 1,), NO_SEED)
        return peak, none.scatter_reduce(0, peak, torch.where(is_seed, pixel, NO_SEED), "amin")

    def _locate(self, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frame, panel, ss and fs of numbered pixels."""
        n_panels, n_ss, n_fs = self.shape
        row = pixel // n_fs
        panel = row // n_ss
        return panel // n_panels, panel % n_panels, row % n_ss, pixel % n_fs

    def _measure(
        self,
        flat: Tensor,
        mean: Tensor,
        upper: Tensor,
        pixel: Tensor,
        value: Tensor,
        peak: Tensor,
        first_seed: Tensor,
    ) -> PeakBatch:
        """Measure every joined group and keep the peaks, in frame, panel and raster order of their seeds."""
        p = self.params

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(len(first_seed)).index_add_(0, peak, values)

        frame, _, ss, fs = self._locate(pixel)
        weight = (value - mean[frame, self._rings_of(pixel % self.n_pixels)]).abs()
        count, raw, weights = total(torch.ones_like(value)), total(value), total(weight)
        top = value.new_full((len(first_seed),), -torch.inf).scatter_reduce(0, peak, value, "amax")
        sums = [
            count,
            raw,
            top,
            *(total(weight * x) / weights for x in (ss, fs)),
            total(value * ss),
            total(value * fs),
        ]
        sized = (first_seed != NO_SEED) & (count >= p.min_pix) & (count <= p.max_pix)
        first_seed, order = torch.sort(first_seed[sized])
        count, raw, top, ss0, fs0, ss1, fs1 = (x[sized][order] for x in sums)
        frame, panel, _, _ = self._locate(first_seed)
        centre = [x.nan_to_num().round().long() for x in (ss0, fs0)]
        level, sigma, highest = self._background(flat, mean, upper, frame, panel, *centre)
        intensity = raw - count * level
        snr = torch.where(sigma > 0, intensity / sigma, 0.0)
        at_ss, at_fs = ss1 / raw, fs1 / raw
        keep = (snr >= p.min_snr) & (top >= highest)
        keep &= (at_ss >= 0) & (at_ss <= self.shape[1] - 1) & (at_fs >= 0) & (at_fs <= self.shape[2] - 1)
        columns = (panel.double(), at_fs, at_ss, intensity, top - level, level, sigma, snr, count)
        return self._first_peaks(frame[keep], torch.stack(columns, 1)[keep], len(flat))

    def _first_peaks(self, frame: Tensor, rows: Tensor, n_frames: int) -> PeakBatch:
        """Keep each frame's first ``max_peaks`` peaks."""
        rank = torch.arange(len(frame), device=frame.device) - torch.searchsorted(frame, frame)
        keep = rank < self.params.max_peaks
        return PeakBatch(frame[keep], rows[keep], n_frames)
