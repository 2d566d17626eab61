"""Logits to a PeakTable on the device that holds them; only the peaks' figures come back.

The same rules as :func:`peaknet_pipeline.infer.decode.decode_frames`, written for wide vector hardware: all
work is over the list of peak pixels and the discs around the peaks.
"""

import torch
from torch import Tensor

from peaknet_pipeline.infer.decode import table_of
from peaknet_pipeline.infer.labelling_torch import Components, find_components
from peaknet_pipeline.infer.measure import MIN_BACKGROUND_PIXELS, N_COLUMNS
from peaknet_pipeline.infer.params import DecodeParams
from peaknet_pipeline.types import PeakTable


def decode_tensors(
    pixels: Tensor,
    logits: Tensor,
    good: Tensor,
    cut: float,
    n_panels: int,
    *,
    params: DecodeParams | None = None,
    first_frame: int = 0,
) -> PeakTable:
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

    Returns
    -------
    PeakTable
        As :func:`peaknet_pipeline.infer.decode.decode_frames` gives, up to rounding.

    """
    params = params or DecodeParams()
    mask = (logits >= cut) & good
    found = find_components(mask)
    if params.split_distance and found.n_components:
        found = split_components(found, logits, params.split_distance)
    panels, peaks = _measure(found, pixels, logits, good, mask, params)
    panels = panels.cpu()
    owners = torch.stack([panels // n_panels, panels % n_panels], dim=1).numpy()
    return table_of(owners, peaks.cpu().numpy(), params, first_frame)


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
    while not torch.equal(top, top[top]):
        top = top[top]
    return _renumber(found, top)


def _renumber(found: Components, top: Tensor) -> Components:
    """Number the parts by component, then by the position of their maximum."""
    summits = (top == torch.arange(len(top), device=top.device)).nonzero().flatten()
    order = torch.argsort(found.numbers[summits] * len(top) + summits)
    number = torch.empty(len(top), dtype=torch.int64, device=top.device)
    number[summits[order]] = torch.arange(len(summits), device=top.device)
    return Components(found.pixels, top, number[top], len(summits))


def _measure(
    found: Components, pixels: Tensor, logits: Tensor, good: Tensor, mask: Tensor, params: DecodeParams
) -> tuple[Tensor, Tensor]:
    """Return the panel (n,) int64 and the figures (n, 9) float64 of every component of an allowed size."""
    height, width = pixels.shape[1:]
    n, number = found.n_components, found.numbers
    device = pixels.device
    if n == 0:
        return number, torch.empty((0, N_COLUMNS), dtype=torch.float64, device=device)
    row = ((found.pixels // width) % height).double()
    column = (found.pixels % width).double()

    def total(values: Tensor) -> Tensor:
        return torch.zeros(n, dtype=torch.float64, device=device).index_add_(0, number, values)

    def highest(values: Tensor) -> Tensor:
        start = torch.full((n,), -torch.inf, dtype=torch.float64, device=device)
        return start.scatter_reduce_(0, number, values, "amax")

    count = total(torch.ones_like(row))
    panel = highest((found.pixels // (height * width)).double()).long()
    mean_row, mean_column = total(row) / count, total(column) / count
    mean, sigma = _background(pixels, good & ~_grow(mask, params.guard), panel, mean_row, mean_column, params)
    value = pixels.flatten()[found.pixels].double() - mean[number]
    positive = value.clamp(min=0)
    weight = total(positive)
    ss = torch.where(weight > 0, total(positive * row) / weight, mean_row)
    fs = torch.where(weight > 0, total(positive * column) / weight, mean_column)
    intensity = total(value)
    snr = torch.where(sigma > 0, intensity / sigma, 0.0)
    logit = highest(logits.flatten()[found.pixels].double())
    peaks = torch.stack([fs, ss, intensity, highest(value), mean, sigma, snr, count, logit], dim=1)
    keep = (count >= params.min_pix) & (count <= params.max_pix)
    return panel[keep], peaks[keep]


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
    few = (count < MIN_BACKGROUND_PIXELS).nonzero().flatten()
    if len(few):
        wide = _disc_moments(pixels, usable, panel[few], row[few], column[few], 2 * radius)
        mean[few], sigma[few] = wide[0], wide[1]
    return mean, sigma


def _disc_moments(
    pixels: Tensor, usable: Tensor, panel: Tensor, row: Tensor, column: Tensor, radius: int
) -> tuple[Tensor, Tensor, Tensor]:
    steps = torch.arange(-radius, radius + 1, device=pixels.device)
    ss, fs = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    disc = ss**2 + fs**2 <= radius**2
    rows, columns = row[:, None] + ss[disc], column[:, None] + fs[disc]
    inside = (rows >= 0) & (rows < pixels.shape[1]) & (columns >= 0) & (columns < pixels.shape[2])
    index = (panel[:, None], rows.clamp(0, pixels.shape[1] - 1), columns.clamp(0, pixels.shape[2] - 1))
    weight = (inside & usable[index]).double()
    value = torch.where(weight > 0, pixels[index], 0.0).double()
    count = weight.sum(dim=1)
    mean = (value * weight).sum(dim=1) / count.clamp(min=1)
    variance = ((value - mean[:, None]).square() * weight).sum(dim=1) / count.clamp(min=1)
    return mean, variance.sqrt(), count
