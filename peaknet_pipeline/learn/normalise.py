"""Frames to significance: background and noise from good pixels, so one network serves ADU, keV, photons.

The panel is cut into cells of 8x8 pixels. Each cell gives the mean and the spread of its good pixels; the
median over the cells of a block is the block's background and noise, untouched by peaks as long as they fill
fewer than half of the cells. Both are interpolated between block centres. Nothing depends on a threshold, a
gain or the value of a bad pixel.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.params import Parameters, parameter


@dataclass(frozen=True)
class NormaliseParameters(Parameters):
    """How frames become significance; stored with the weights, since both belong together."""

    cell: int = parameter(8, meaning="side of a cell, whose mean and variance are taken", unit="px", ge=2)
    block_cells: int = parameter(4, meaning="cells per side of a block, over which medians are taken", ge=1)
    min_good: int = parameter(16, meaning="good pixels that a cell needs to count", unit="px", ge=2)
    noise_floor: float = parameter(
        0.1, meaning="least noise of a block, as a share of the panel's median", ge=0
    )
    poisson_noise: bool = parameter(
        True,
        meaning="where photons are rare, the noise gives 2x2 pixels their Poisson significance; else it is one photon there",
    )
    compression: float = parameter(
        4.0,
        meaning="significance c up to which the output is linear; beyond, its slope halves with each doubling of 1 + |z| / c",
        unit="sigma",
        gt=0,
    )


ROUNDING = 1e-5
"""Least noise as a share of the background: below it, single-precision values say nothing."""


POISSON_SIGMA, NEWTON_STEPS = 3.3, 6
"""Significance at which 2x2 pixels have that of their photons, about where peaks begin; steps that find the excess."""

LEAST_RATE = 1e-5
"""Photons in a pixel below which no background is believed."""

ONE_BITS, MANTISSA_STEP = 0x3F800000, 2.0**-23
"""The float32 1.0 as an integer, and the share of a doubling that one unit of its mantissa is."""


class CellMoments(NamedTuple):
    """Of each cell's good pixels, each (n, cells_ss, cells_fs)."""

    mean: Tensor
    variance: Tensor
    excess: Tensor
    """Mean distance from the mean of the pixels above it; 0 if there are none."""
    n_good: Tensor
    n_above: Tensor
    """Pixels above the mean: where photons are rare, those that hold any."""


class Background(NamedTuple):
    """Background and noise per block, each (n, blocks_ss, blocks_fs), in the image's unit."""

    mean: Tensor
    noise: Tensor


def normalise(images: Tensor, good: Tensor, params: NormaliseParameters | None = None) -> Tensor:
    """Turn panels or crops into compressed significance.

    Parameters
    ----------
    images : Tensor
        (n, ss, fs), any real dtype, any unit.
    good : Tensor
        (n, ss, fs), bool. Non-finite pixels count as bad in any case.
    params : NormaliseParameters, optional
        As stored with the weights.

    Returns
    -------
    Tensor
        (n, 1, ss, fs), float32: :func:`compress` of z = (image − background) / noise; 0 at bad pixels.

    Raises
    ------
    ModelError
        Shapes that do not fit.

    """
    params = params or NormaliseParameters()
    pixels, good = _finite(images, good)
    background = estimate_background(pixels, good, params)
    return significance(pixels, good, background, params)


def estimate_static(
    images: Tensor, good: Tensor, params: NormaliseParameters | None = None
) -> tuple[Background, Tensor]:
    """Estimate the background by steps that do not depend on the values: a GPU is never asked, and can record them.

    Parameters
    ----------
    images, good, params
        As for :func:`estimate_background`.

    Returns
    -------
    background : Background
        As :func:`estimate_background` gives.
    unsure : Tensor
        (n,) bool: panels with good pixels whose blocks don't suffice; their background is of no use.

    """
    params = params or NormaliseParameters()
    pixels, good = _finite(images, good)
    centre, noise, typical = _blocks(_cell_moments(pixels, good, params), params)
    empty = ~good.flatten(1).any(dim=1)
    at_panel = empty[:, None, None]
    background = Background(torch.where(at_panel, 0.0, centre), torch.where(at_panel, 1.0, noise))
    return background, ~(typical > 0) & ~empty


def significance(pixels: Tensor, good: Tensor, background: Background, params: NormaliseParameters) -> Tensor:
    """Apply a background: (n, ss, fs) float32 pixels to (n, 1, ss, fs) compressed significance."""
    mean = expand_blocks(background.mean, pixels.shape[-2:], params, outwards="linear")
    noise = expand_blocks(background.noise, pixels.shape[-2:], params)
    z = compress((pixels - mean) / noise, params.compression)
    return torch.where(good, z, 0.0).unsqueeze(1)


def compress(z: Tensor, linear_to: float) -> Tensor:
    """Compress significance (float32, any shape) like a logarithm: ± c · L(1 + |z| / c), c = ``linear_to``.

    L is log2 between powers of two taken linearly, which is what a float's own exponent and mantissa spell. So half
    of a bright spot's height stays as far below its top as half of a faint one's, however bright it is.
    """
    bits = (1.0 + z.abs() / linear_to).contiguous().view(torch.int32)
    return torch.copysign((bits - ONE_BITS).to(torch.float32) * (linear_to * MANTISSA_STEP), z)


def compressed(sigma: float, params: NormaliseParameters) -> float:
    """Return one significance as :func:`compress` gives it, without a tensor: a recording or compilation is not disturbed."""
    mantissa, exponent = math.frexp(1.0 + abs(sigma) / params.compression)
    return math.copysign(params.compression * (exponent + 2.0 * mantissa - 2.0), sigma)


def estimate_background(
    images: Tensor, good: Tensor, params: NormaliseParameters | None = None
) -> Background:
    """Estimate each block's background and noise from good pixels.

    Parameters
    ----------
    images, good : Tensor
        (n, ss, fs), as for :func:`normalise`.
    params : NormaliseParameters, optional
        Cell and block sizes.

    Returns
    -------
    Background
        Per block of ``cell * block_cells`` pixels. Blocks with too few good pixels take their neighbours'
        values; a panel without usable blocks takes the mean and deviation of all its good pixels; without
        any, 0 and 1.

    """
    params = params or NormaliseParameters()
    pixels, good = _finite(images, good)
    moments = _cell_moments(pixels, good, params)

    def panel(index: int) -> Tensor:
        return pixels[index][good[index]]

    return background_from_cells(moments, panel, params)


def background_from_cells(
    moments: CellMoments, panel: Callable[[int], Tensor], params: NormaliseParameters
) -> Background:
    """Turn moments per cell into background and noise per block.

    The noise is the deviation, but at least what :func:`_least_noise` says where photons are rare.

    Parameters
    ----------
    moments : CellMoments
        Of whole blocks of cells.
    panel : callable
        Gives all good pixels of a panel, for panels where blocks don't suffice.
    params : NormaliseParameters
        Cell and block sizes.

    """
    centre, noise, typical = _blocks(moments, params)
    for index in (~(typical > 0)).nonzero().flatten().tolist():
        level, excess = _panel_moments(panel(index))
        centre[index] = centre[index].nan_to_num(level)
        noise[index] = noise[index].nan_to_num(0.0).clamp(min=excess)
    return Background(centre, noise)


def _blocks(moments: CellMoments, params: NormaliseParameters) -> tuple[Tensor, Tensor, Tensor]:
    """Return background and noise per block, NaN or 0 where blocks don't suffice, and (n,) typical noise of the panels."""
    usable = moments.n_good >= params.min_good
    side = params.block_cells
    centre = _fill(_block_median(moments.mean, usable, side))
    noise = _fill(_block_median(moments.variance, usable, side).sqrt())
    noise = torch.maximum(
        torch.maximum(noise, _least_noise(moments, usable, params)), ROUNDING * centre.abs()
    )
    typical = noise.flatten(1).median(dim=1).values
    return centre, torch.maximum(noise, params.noise_floor * typical[:, None, None]), typical


def _least_noise(moments: CellMoments, usable: Tensor, params: NormaliseParameters) -> Tensor:
    """Return the least noise per block, which counts where photons are rare; 0 where nothing is above its mean.

    The quantum is what a typical pixel above the mean has above it: one photon where they are rare, 0.8 deviations of a
    Gaussian. The share of pixels above the mean, of a block and its eight neighbours, tells the photons per pixel,
    b = −ln(1 − share). With ``poisson_noise``, 2x2 pixels that hold e photons more than the μ = 4b expected ones have just
    :data:`POISSON_SIGMA` deviations, e / (2 · noise), where that is their Poisson significance
    √(2·((μ + e)·ln((μ + e) / μ) − e)); Newton's method gives e, from above since the function is convex. For large b
    the noise is √b, as it should be; of few photons the network sees by one photon's height how rare they are.
    """
    side = params.block_cells
    quantum = _fill(_block_median(moments.excess, usable & (moments.excess > 0), side)).nan_to_num(0.0)
    if not params.poisson_noise:
        return quantum
    typical = torch.where(quantum > 0, quantum, torch.nan).flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    quantum = torch.minimum(quantum, typical[:, None, None])
    above, good = (
        functional.avg_pool2d(part, 3 * side, stride=side, padding=side, count_include_pad=False)
        for part in (moments.n_above, moments.n_good)
    )
    rate = -torch.log1p(-(above / good.clamp(min=1e-6)).clamp(max=0.99))
    expected = 4 * rate.clamp(min=LEAST_RATE)
    excess = POISSON_SIGMA * expected.sqrt() + POISSON_SIGMA**2
    for _ in range(NEWTON_STEPS):
        logarithm = torch.log1p(excess / expected)
        excess = (POISSON_SIGMA**2 / 2 + excess - expected * logarithm) / logarithm
    return quantum * excess / (2 * POISSON_SIGMA)


def expand_blocks(
    grid: Tensor,
    shape: torch.Size | tuple[int, int],
    params: NormaliseParameters,
    *,
    outwards: Literal["constant", "linear"] = "constant",
) -> Tensor:
    """Interpolate a block grid (n, blocks_ss, blocks_fs) bilinearly between block centres to (n, ss, fs).

    Beyond the outermost centres it stays constant, or goes on linearly.
    """
    side = params.cell * params.block_cells
    ring = ring_blocks(grid, outwards=outwards)
    full = functional.interpolate(ring, scale_factor=float(side), mode="bilinear", align_corners=False)
    return full[:, 0, side : side + shape[0], side : side + shape[1]]


def ring_blocks(grid: Tensor, *, outwards: Literal["constant", "linear"]) -> Tensor:
    """Surround a grid (n, blocks_ss, blocks_fs) by extrapolated blocks: (n, 1, + 2, + 2)."""
    ring = functional.pad(grid.unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    return _slope_outwards(_slope_outwards(ring).mT).mT if outwards == "linear" else ring


def _slope_outwards(ring: Tensor) -> Tensor:
    """Replace the outermost columns by a linear continuation of the two next to them."""
    if ring.shape[-1] < 4:
        return ring
    left, right = 2 * ring[..., 1:2] - ring[..., 2:3], 2 * ring[..., -2:-1] - ring[..., -3:-2]
    return torch.cat([left, ring[..., 1:-1], right], dim=-1)


def _finite(images: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    if images.ndim != 3 or images.shape != good.shape:
        raise ModelError(
            "image and mask do not fit",
            expected="both (n, ss, fs)",
            found=f"{tuple(images.shape)} and {tuple(good.shape)}",
        )
    pixels = images.to(torch.float32)
    good = good.to(torch.bool) & torch.isfinite(pixels)
    return torch.where(good, pixels, 0.0), good


def _cell_moments(pixels: Tensor, good: Tensor, params: NormaliseParameters) -> CellMoments:
    side = params.cell * params.block_cells
    pad = (0, -pixels.shape[2] % side, 0, -pixels.shape[1] % side)
    n, height, width = pixels.shape[0], pixels.shape[1] + pad[3], pixels.shape[2] + pad[1]
    cells = (n, height // params.cell, params.cell, width // params.cell, params.cell)
    values = functional.pad(pixels, pad).reshape(cells)
    weight = functional.pad(good.to(torch.float32), pad).reshape(cells)
    count = weight.sum(dim=(2, 4))
    mean = values.sum(dim=(2, 4)) / count.clamp(min=1)
    spread = (values - mean[:, :, None, :, None]) * weight
    variance = spread.square().sum(dim=(2, 4)) / (count - 1).clamp(min=1)
    above = spread.clamp(min=0)
    n_above = (above > 0).sum(dim=(2, 4)).to(torch.float32)
    excess = above.sum(dim=(2, 4)) / n_above.clamp(min=1)
    return CellMoments(mean, variance, excess, count, n_above)


def _block_median(values: Tensor, usable: Tensor, side: int) -> Tensor:
    n, height, width = values.shape
    blocks = torch.where(usable, values, torch.nan).reshape(n, height // side, side, width // side, side)
    flat = blocks.permute(0, 1, 3, 2, 4).reshape(n, height // side, width // side, side * side)
    return flat.nanmedian(dim=-1).values


def _panel_moments(values: Tensor) -> tuple[float, float]:
    """Mean, and the median excess above it (one photon, in a nearly empty panel); 1 if constant."""
    if not values.numel():
        return 0.0, 1.0
    mean = float(values.mean())
    above = values[values > mean]
    return mean, float(above.median()) - mean if above.numel() else 1.0


def _fill(grid: Tensor) -> Tensor:
    """Grow known blocks into unknown (NaN) ones by averages over 3x3 neighbours; all unknown stays so."""
    for _ in range(max(grid.shape[-2:])):
        unknown = grid.isnan()
        # Asking a GPU would stop its queue; further rounds change nothing.
        if grid.device.type == "cpu" and not bool(unknown.any()):
            break
        known = functional.avg_pool2d((~unknown).to(grid.dtype), 3, stride=1, padding=1)
        total = functional.avg_pool2d(grid.nan_to_num(0.0), 3, stride=1, padding=1)
        grid = torch.where(unknown & (known > 0), total / known, grid)
    return grid
