"""Where a ``local`` network learns: at the few places of a crop that could be peaks, and at some that could not.

Nearly all of a crop is noise that nothing could take for a peak. Computing only blocks around high pairs of pixels
gives the same gradient where it matters for a fraction of the arithmetic.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from peaknet_pipeline.learn.crops import CropBatch

BORDER_SHARE = 0.25
"""Share of the candidates kept that lie so close to a crop's border that their neighbourhood is cut off."""


class Blocks(NamedTuple):
    """Squares of pixels in a batch of crops: the crop and first pixel of each, (n,) int64."""

    crop: Tensor
    ss: Tensor
    fs: Tensor


def choose_blocks(
    significance: Tensor,
    *,
    level: float,
    per_crop: int,
    n_background: int,
    cell: int,
    margin: int,
    generator: Generator,
) -> Blocks:
    """Choose blocks of 2x2 cells around candidates, and elsewhere.

    Parameters
    ----------
    significance : Tensor
        (n, ss, fs), compressed, on the CPU.
    level : float
        A candidate is a local maximum that reaches it beside a pixel that does; same unit.
    per_crop, n_background : int
        Candidates of each crop at most, and further blocks anywhere in it.
    cell : int
        Side of a cell, pixels; blocks begin at its multiples.
    margin : int
        Candidates closer to the border are mostly left out, pixels.
    generator : Generator

    """
    n, height, width = significance.shape
    score = torch.rand(significance.shape, generator=generator)
    score[:, margin : height - margin, margin : width - margin] *= BORDER_SHARE
    score = torch.where(find_candidates(significance, level) & (score < BORDER_SHARE), score, torch.inf)
    best, place = score.flatten(1).topk(min(per_crop, height * width), largest=False)
    crop, row = torch.isfinite(best).nonzero(as_tuple=True)
    place = place[crop, row]
    ss, fs = place // width, place % width
    last = torch.tensor([height, width]) - 2 * cell
    near = torch.stack([ss, fs], dim=1) - cell // 2
    elsewhere = (torch.rand((n * n_background, 2), generator=generator) * (last + 1)).long()
    corner = torch.cat([near, elsewhere]).clamp(min=0).minimum(last) // cell * cell
    crops = torch.cat([crop, torch.arange(n).repeat_interleave(n_background)])
    return Blocks(crops, corner[:, 0], corner[:, 1])


def find_candidates(significance: Tensor, level: float) -> Tensor:
    """Return which pixels of (n, ss, fs) are local maxima from ``level`` on with a neighbour from ``level`` on."""
    summit = functional.max_pool2d(significance[:, None], 3, stride=1, padding=1)[:, 0]
    return (significance >= summit) & find_pairs(significance, level)


def find_pairs(significance: Tensor, level: float) -> Tensor:
    """Return which pixels of (n, ss, fs) reach ``level`` beside one of their eight neighbours that does."""
    high = (significance >= level).float()[:, None]
    together = functional.avg_pool2d(high, 3, stride=1, padding=1, divisor_override=1)
    return ((high > 0) & (together > 1.5))[:, 0]


def near_pairs(significance: Tensor, level: float, cell: int) -> Tensor:
    """Return which pixels of (n, ss, fs) share a cell with a pixel of a high pair, or with one next to it.

    A pair is two neighbouring pixels from ``level`` on; only there can inference keep a peak (``min_neighbour``).
    """
    height, width = significance.shape[1:]
    pairs = find_pairs(significance, level).float()[:, None]
    near = functional.max_pool2d(pairs, 3, stride=1, padding=1)
    cells = functional.max_pool2d(functional.pad(near, (0, -width % cell, 0, -height % cell)), cell)
    pixels = cells.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3)
    return pixels[:, 0, :height, :width] > 0


def cut_blocks(
    batch: CropBatch, significance: Tensor, blocks: Blocks, *, side: int, margin: int
) -> tuple[CropBatch, Tensor]:
    """Cut blocks out of a batch of crops.

    Returns
    -------
    batch : CropBatch
        (n_blocks, side, side).
    significance : Tensor
        (n_blocks, 1, side + 2 margin, side + 2 margin); 0 beyond the crops.

    """
    parts = [_cut(part, blocks, side) for part in batch]
    wide = functional.pad(significance[:, 0], (margin,) * 4)
    return CropBatch(*parts), _cut(wide, blocks, side + 2 * margin)[:, None]


def _cut(images: Tensor, blocks: Blocks, side: int) -> Tensor:
    steps = torch.arange(side, device=images.device)
    crop, ss, fs = (x.to(images.device) for x in blocks)
    return images[crop[:, None, None], (ss[:, None] + steps)[:, :, None], (fs[:, None] + steps)[:, None]]
