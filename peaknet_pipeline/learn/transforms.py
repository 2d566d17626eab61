"""Augmentation of raw crops before normalisation: pure functions of a batch and a generator."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from peaknet_pipeline.learn.crops import CropBatch
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import LABEL_IGNORE


@dataclass(frozen=True)
class TransformParameters(Parameters):
    """Which augmentations a training crop sees, and how often."""

    symmetry: bool = parameter(True, meaning="flip and rotate by multiples of 90 degrees")
    gain_range: float = parameter(2.0, meaning="largest factor by which intensities are scaled", ge=1)
    background_probability: float = parameter(
        0.3, meaning="share of crops that get more background, with its noise", ge=0, le=1
    )
    background_range: float = parameter(
        1.0, meaning="largest background added, as a multiple of the crop's mean", ge=0
    )
    thinning_probability: float = parameter(
        0.2, meaning="share of crops whose photons are thinned (Poisson resampling)", ge=0, le=1
    )
    least_kept: float = parameter(0.6, meaning="least share of photons that thinning keeps", gt=0, le=1)
    adu_per_photon: float = parameter(1.0, meaning="intensity of a photon in the crops", unit="adu", gt=0)
    mask_probability: float = parameter(
        0.2, meaning="share of crops that get bad pixels, rows and columns", ge=0, le=1
    )
    dropout_probability: float = parameter(
        0.1, meaning="share of crops of which a rectangle is masked", ge=0, le=1
    )


def augment_batch(batch: CropBatch, params: TransformParameters, generator: Generator) -> CropBatch:
    """Apply all augmentations to a batch; the result follows from the generator's state."""
    if params.symmetry:
        batch = turn_crops(batch, generator)
    image = thin_photons(batch.image, params, generator)
    image = add_background(image, params, generator)
    image = scale_gain(image, params, generator)
    return mask_randomly(batch._replace(image=image), params, generator)


def turn_crops(batch: CropBatch, generator: Generator) -> CropBatch:
    """Turn each crop by one of the square's symmetries (rectangles: only those that keep the shape)."""
    square = batch.image.shape[-1] == batch.image.shape[-2]
    drawn = torch.randint(0, 8, (len(batch.image),), generator=generator).tolist()
    turns = [(d % 4 if square else d % 2 * 2, d >= 4) for d in drawn]
    return CropBatch(
        *(torch.stack([_turn(x, *t) for x, t in zip(part, turns, strict=True)]) for part in batch)
    )


def scale_gain(image: Tensor, params: TransformParameters, generator: Generator) -> Tensor:
    """Multiply each crop by a factor in [1 / gain_range, gain_range], log-uniform."""
    drawn = torch.rand(len(image), generator=generator)
    return image * (params.gain_range ** (2 * drawn - 1))[:, None, None]


def thin_photons(image: Tensor, params: TransformParameters, generator: Generator) -> Tensor:
    """Keep each photon with a probability drawn per crop: a weaker pulse with its Poisson statistics.

    What is not a whole photon (read noise, negative values) is scaled by the same factor.
    """
    chosen = _choose(len(image), params.thinning_probability, generator)
    kept = params.least_kept + (1 - params.least_kept) * torch.rand(len(image), generator=generator)
    if not bool(chosen.any()):
        return image
    share = kept[chosen][:, None, None]
    photons = image[chosen] / params.adu_per_photon
    whole = photons.clamp(min=0).floor()
    thinned = torch.binomial(whole, share.expand_as(whole).contiguous(), generator=generator)
    result = image.clone()
    result[chosen] = (thinned + (photons - whole) * share) * params.adu_per_photon
    return result


def add_background(image: Tensor, params: TransformParameters, generator: Generator) -> Tensor:
    """Add a plane of extra photons with Poisson noise, up to ``background_range`` times the crop's mean."""
    chosen = _choose(len(image), params.background_probability, generator)
    drawn = torch.rand((len(image), 3), generator=generator)
    if not bool(chosen.any()):
        return image
    mean = image[chosen].mean(dim=(1, 2), keepdim=True).clamp(min=0) / params.adu_per_photon
    level, slope_ss, slope_fs = (d[:, None, None] for d in drawn[chosen].unbind(dim=1))
    ss = torch.linspace(-0.5, 0.5, image.shape[1])[None, :, None]
    fs = torch.linspace(-0.5, 0.5, image.shape[2])[None, None, :]
    plane = params.background_range * level * mean * (1 + (slope_ss - 0.5) * ss + (slope_fs - 0.5) * fs)
    result = image.clone()
    result[chosen] += torch.poisson(plane, generator=generator) * params.adu_per_photon
    return result


def mask_randomly(batch: CropBatch, params: TransformParameters, generator: Generator) -> CropBatch:
    """Mask single pixels, a row and a column of some crops, a rectangle of others; labels there: "ignore"."""
    n, height, width = batch.image.shape
    good = batch.good.clone()
    speckled = _choose(n, params.mask_probability, generator)
    dropped = _choose(n, params.dropout_probability, generator)
    speckle = torch.rand(batch.image.shape, generator=generator) < 0.01
    corners = torch.rand((n, 4), generator=generator)
    for index in range(n):
        top, left = int(corners[index, 0] * height), int(corners[index, 1] * width)
        if speckled[index]:
            good[index] &= ~speckle[index]
            good[index, top, :] = False
            good[index, :, left] = False
        if dropped[index]:
            bottom, right = (
                int(top + 1 + corners[index, 2] * height / 2),
                int(left + 1 + corners[index, 3] * width / 2),
            )
            good[index, top:bottom, left:right] = False
    return CropBatch(batch.image, good, torch.where(good, batch.label, LABEL_IGNORE))


def _turn(part: Tensor, quarters: int, flip: bool) -> Tensor:
    turned = torch.rot90(part, quarters, dims=(0, 1))
    return turned.flip(0) if flip else turned


def _choose(n: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < probability
