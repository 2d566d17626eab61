"""Logits to a PeakTable on the device that holds them; only the peaks' figures come back.

The same rules as :func:`peaknet_pipeline.infer.decode.decode_frames`, written for wide vector hardware: all
work is over the list of peak pixels and the discs around the peaks. The host waits for the device three times a
batch: for the number of peak pixels, for the number of peaks, and for the peaks.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.infer.decode import table_of
from peaknet_pipeline.infer.found import Found, PeakPixels
from peaknet_pipeline.infer.labelling_torch import Components, find_components
from peaknet_pipeline.infer.measure import (
    LEAST_LIGHT,
    MAX_CENTRED_PIXELS,
    MAX_SHIFT,
    MIN_BACKGROUND_PIXELS,
    N_COLUMNS,
    N_PIXELS,
    SHARP,
    WINDOW,
    WINDOW_STEPS,
)
from peaknet_pipeline.infer.params import DecodeParams


def decode_tensors(
    pixels: Tensor,
    logits: Tensor,
    good: Tensor,
    cut: float,
    n_panels: int,
    *,
    params: DecodeParams | None = None,
    first_frame: int = 0,
    with_pixels: bool = False,
) -> Found:
    """Turn logits into peaks.

    Parameters
    ----------
    pixels, logits : Tensor
        (m, ss, fs) float32, panels of consecutive frames.
    good : Tensor
        (m, ss, fs) bool.
    cut : float
        Threshold on the logit.
    n_panels : int
        Panels per frame.
    with_pixels : bool
        Also give the pixels of the peaks.

    Returns
    -------
    Found
        Peaks as :func:`peaknet_pipeline.infer.decode.decode_frames` gives, up to rounding.

    """
    params = params or DecodeParams()
    mask = (logits >= cut) & good
    components = find_components(mask)
    parts = components
    if params.split_distance and components.n_components:
        parts = split_components(components, logits, params.split_distance)
    measured = _measure(parts, pixels, logits, good, mask, params).cpu().numpy()
    size = measured[:, N_PIXELS]
    measured = measured[(size >= params.min_pix) & (size <= params.max_pix)]
    panel = measured[:, N_COLUMNS].astype(np.int64)
    owners = np.stack([panel // n_panels, panel % n_panels], axis=1)
    peaks = table_of(owners, measured[:, :N_COLUMNS], params, first_frame)
    if not with_pixels:
        return Found(peaks)
    shape = (len(pixels) // n_panels, n_panels, *pixels.shape[1:])
    return Found(peaks, PeakPixels.from_flat(components.pixels.cpu().numpy(), shape))


def split_components(found: Components, logits: Tensor, distance: int) -> Components:
    """Divide components by climbing in steps of ``distance``; see :mod:`peaknet_pipeline.infer.measure`."""
    height, width = logits.shape[1:]
    flat = logits.flatten()
    own = torch.arange(len(found.pixels), device=flat.device)
    best_value, top = flat[found.pixels], own
    column, row = found.pixels % width, (found.pixels // width) % height
    for ss in range(-distance, distance + 1):
        for fs in range(-distance, distance + 1):
            target = found.pixels + ss * width + fs
            place = torch.searchsorted(found.pixels, target).clamp(max=len(own) - 1)
            near = (column + fs >= 0) & (column + fs < width) & (row + ss >= 0) & (row + ss < height)
            near &= (found.pixels[place] == target) & (found.roots[place] == found.roots)
            value = torch.where(near, flat[found.pixels[place]], -torch.inf)
            better = (value > best_value) | ((value == best_value) & (place < top))
            best_value, top = torch.where(better, value, best_value), torch.where(better, place, top)
    for _ in range(len(top).bit_length()):
        top = top[top]
    return _renumber(found, top)


def _renumber(found: Components, top: Tensor) -> Components:
    """Number the parts by component, then by the position of their maximum (one more wait, for their number)."""
    summits = (top == torch.arange(len(top), device=top.device)).nonzero().flatten()
    order = torch.argsort(found.numbers[summits] * len(top) + summits)
    number = torch.empty(len(top), dtype=torch.int64, device=top.device)
    number[summits[order]] = torch.arange(len(summits), device=top.device)
    return Components(found.pixels, top, number[top], len(summits))


def _measure(
    found: Components, pixels: Tensor, logits: Tensor, good: Tensor, mask: Tensor, params: DecodeParams
) -> Tensor:
    """Return the figures and, last, the panel of every component, (n, 11) float64."""
    height, width = pixels.shape[1:]
    n, number = found.n_components, found.numbers
    device = pixels.device
    if n == 0:
        return torch.empty((0, N_COLUMNS + 1), dtype=torch.float64, device=device)
    row = ((found.pixels // width) % height).double()
    column = (found.pixels % width).double()

    def total(values: Tensor) -> Tensor:
        return torch.zeros(n, dtype=torch.float64, device=device).index_add_(0, number, values)

    def highest(values: Tensor) -> Tensor:
        start = torch.full((n,), -torch.inf, dtype=torch.float64, device=device)
        return start.scatter_reduce_(0, number, values, "amax")

    count = total(torch.ones_like(row))
    on_panel = highest((found.pixels // (height * width)).double())
    panel = on_panel.long()
    mean_row, mean_column = total(row) / count, total(column) / count
    mean, sigma = _background(pixels, good & ~_grow(mask, params.guard), panel, mean_row, mean_column, params)
    value = pixels.flatten()[found.pixels].double() - mean[number]
    positive = value.clamp(min=0)
    weight = total(positive)
    ss = torch.where(weight > 0, total(positive * row) / weight, mean_row)
    fs = torch.where(weight > 0, total(positive * column) / weight, mean_column)
    order = torch.arange(len(value), device=device)
    last = torch.full((n,), len(order), device=device)
    top = highest(value)
    first = last.scatter_reduce_(0, number, torch.where(value >= top[number], order, len(order)), "amin")
    centre = found.pixels[first]
    ss, fs = _centres(pixels, good, centre, mean, count, ss, fs)
    intensity = total(value)
    snr = torch.where(sigma > 0, intensity / sigma, 0.0)
    logit = highest(logits.flatten()[found.pixels].double())
    beside = torch.minimum(top, _highest_neighbour(pixels, good, centre) - mean)
    neighbour = torch.where(sigma > 0, beside / sigma, torch.where(beside > 0, torch.inf, 0.0))
    figures = [fs, ss, intensity, top, mean, sigma, snr, count, logit, neighbour, on_panel]
    return torch.stack(figures, dim=1)


def _centres(
    pixels: Tensor, good: Tensor, top: Tensor, mean: Tensor, count: Tensor, ss: Tensor, fs: Tensor
) -> tuple[Tensor, Tensor]:
    """Return centres (n,) as ``measure._centre`` sets them, from the first highest pixels ``top`` (n,); else ``ss``, ``fs``."""
    height, width = pixels.shape[1:]
    steps = torch.arange(-WINDOW, WINDOW + 1, device=pixels.device)
    i, j = (s.flatten() for s in torch.meshgrid(steps, steps, indexing="ij"))
    row, column = (top // width) % height, top % width
    rows, columns = row[:, None] + i, column[:, None] + j
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    at = torch.where(inside, top[:, None] + i * width + j, top[:, None])
    usable = inside & good.flatten()[at]
    values = torch.where(usable, pixels.flatten()[at].double() - mean[:, None], 0.0)
    ring = torch.maximum(i.abs(), j.abs())
    inner = values * (ring <= 1)
    positive, outer = inner.clamp(min=0), (values * (ring <= 2)).sum(dim=1)
    sharp, weight = inner.sum(dim=1) >= SHARP * outer, positive.sum(dim=1)
    shift = torch.zeros((2, len(top)), dtype=torch.float64, device=pixels.device)
    alive = torch.ones(len(top), dtype=torch.bool, device=pixels.device)
    for _ in range(WINDOW_STEPS):
        d_ss, d_fs = i - shift[0][:, None], j - shift[1][:, None]
        share = torch.exp(-0.5 * (d_ss * d_ss + d_fs * d_fs)) * values
        total = share.sum(dim=1)
        alive &= total > LEAST_LIGHT * share.abs().sum(dim=1)
        step = torch.stack([(share * d_ss).sum(dim=1), (share * d_fs).sum(dim=1)])
        shift = torch.where(alive, shift + (2 * step / total).clamp(-1, 1), shift)
    by_mass = torch.stack([(positive * i).sum(dim=1), (positive * j).sum(dim=1)]) / weight
    shift = torch.where(sharp, by_mass, shift)
    known = torch.where(sharp, weight > 0, alive & (shift.abs().amax(dim=0) <= MAX_SHIFT))
    known &= count <= MAX_CENTRED_PIXELS
    return torch.where(known, row + shift[0], ss), torch.where(known, column + shift[1], fs)


def _highest_neighbour(pixels: Tensor, good: Tensor, centre: Tensor) -> Tensor:
    """Return the highest good pixel of the eight around each component's first highest one; -inf if none is good."""
    height, width = pixels.shape[1:]
    row, column = (centre // width) % height, centre % width
    values, usable = pixels.flatten(), good.flatten()
    highest = torch.full((len(centre),), -torch.inf, dtype=torch.float64, device=pixels.device)
    for ss, fs in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j):
        inside = (row + ss >= 0) & (row + ss < height) & (column + fs >= 0) & (column + fs < width)
        at = torch.where(inside, centre + ss * width + fs, centre)
        value = torch.where(inside & usable[at], values[at].double(), -torch.inf)
        highest = torch.maximum(highest, value)
    return highest


def _grow(mask: Tensor, guard: int) -> Tensor:
    if guard == 0:
        return mask
    side = 2 * guard + 1
    grown = torch.nn.functional.max_pool2d(mask.to(torch.float32).unsqueeze(1), side, stride=1, padding=guard)
    return grown[:, 0] > 0


def _background(
    pixels: Tensor, usable: Tensor, panel: Tensor, mean_row: Tensor, mean_column: Tensor, params: DecodeParams
) -> tuple[Tensor, Tensor]:
    """Mean and deviation in each peak's disc; the disc of twice the radius where it holds too few pixels."""
    row, column = torch.round(mean_row).long(), torch.round(mean_column).long()
    radius = params.background_radius
    mean, sigma, count = _disc_moments(pixels, usable, panel, row, column, radius)
    # The wide disc of all peaks costs less than asking which ones need it.
    wide_mean, wide_sigma, _ = _disc_moments(pixels, usable, panel, row, column, 2 * radius)
    few = count < MIN_BACKGROUND_PIXELS
    return torch.where(few, wide_mean, mean), torch.where(few, wide_sigma, sigma)


def _disc_moments(
    pixels: Tensor, usable: Tensor, panel: Tensor, row: Tensor, column: Tensor, radius: int
) -> tuple[Tensor, Tensor, Tensor]:
    ss, fs = _disc(radius, pixels.device)
    rows, columns = row[:, None] + ss, column[:, None] + fs
    inside = (rows >= 0) & (rows < pixels.shape[1]) & (columns >= 0) & (columns < pixels.shape[2])
    index = (panel[:, None], rows.clamp(0, pixels.shape[1] - 1), columns.clamp(0, pixels.shape[2] - 1))
    weight = (inside & usable[index]).double()
    value = torch.where(weight > 0, pixels[index], 0.0).double()
    count = weight.sum(dim=1)
    mean = (value * weight).sum(dim=1) / count.clamp(min=1)
    variance = ((value - mean[:, None]).square() * weight).sum(dim=1) / count.clamp(min=1)
    return mean, variance.sqrt(), count


@functools.cache
def _disc(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the steps (k,) along ss and fs from a disc's centre to its pixels."""
    ss, fs = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = ss**2 + fs**2 <= radius**2
    return torch.from_numpy(ss[inside]).to(device), torch.from_numpy(fs[inside]).to(device)
