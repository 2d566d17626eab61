"""Losses as pure functions of logits: focal, Dice, distillation."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from peaknet_pipeline.learn.blocks import find_pairs
from peaknet_pipeline.types import LABEL_IGNORE, LABEL_PEAK


def focal_loss(
    logits: Tensor,
    label: Tensor,
    *,
    gamma: float = 2.0,
    alpha_peak: float = 0.75,
    alpha_background: float = 0.25,
) -> Tensor:
    """Return the focal loss (Lin et al. 2017, equation 5), averaged over the pixels that are not "ignore".

    Parameters
    ----------
    logits : Tensor
        (n, c, ss, fs); channel 0 is the logit of "peak".
    label : Tensor
        (n, ss, fs), uint8: 0, 1 or 255.
    gamma, alpha_peak, alpha_background : float
        Focusing exponent and class weights.

    """
    counts = label != LABEL_IGNORE
    peak = label == LABEL_PEAK
    logit = logits[:, 0].float()
    towards = torch.where(peak, logit, -logit)
    alpha = torch.where(peak, alpha_peak, alpha_background)
    loss = alpha * torch.sigmoid(-towards) ** gamma * functional.softplus(-towards)
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return 1 − the soft Dice overlap of peak pixels over the batch, "ignore" left out."""
    counts = label != LABEL_IGNORE
    peak = (label == LABEL_PEAK).float()
    probability = torch.sigmoid(logits[:, 0].float()) * counts
    overlap = (probability * peak).sum()
    return 1.0 - (2.0 * overlap + 1.0) / (probability.sum() + peak.sum() + 1.0)


def offset_loss(logits: Tensor, target: Tensor, label: Tensor) -> Tensor:
    """Return the mean smooth L1 distance of channels 1 and 2 from the target offsets, over peak pixels.

    Parameters
    ----------
    logits : Tensor
        (n, 3, ss, fs).
    target : Tensor
        (n, 2, ss, fs), from :func:`centre_offsets`, px.
    label : Tensor
        (n, ss, fs), uint8.

    """
    peak = (label == LABEL_PEAK)[:, None]
    apart = functional.smooth_l1_loss(logits[:, 1:3].float(), target, reduction="none", beta=0.5)
    return (apart * peak).sum() / (2 * peak.sum()).clamp(min=1)


def ignore_lone_pixels(label: Tensor, significance: Tensor, level: float) -> Tensor:
    """Return the label (n, ss, fs) with "ignore" at background pixels that stand alone: hot ones, and the noise's highest.

    Such a pixel reaches ``level`` in ``significance`` (n, ss, fs), in the same compressed unit, and none of its eight
    neighbours does. Inference drops what has no such neighbour (``min_neighbour``).
    """
    lone = (significance >= level) & ~find_pairs(significance, level)
    return torch.where(lone & (label != LABEL_PEAK), LABEL_IGNORE, label)


def centre_offsets(label: Tensor, significance: Tensor) -> Tensor:
    """Return the offset (n, 2, ss, fs) from each peak pixel to its peak's centre, px: ss and fs; 0 elsewhere.

    A peak is an 8-connected component of ``label`` (n, ss, fs); its centre is weighted by the positive part of
    ``significance`` (n, 1, ss, fs).
    """
    from scipy import ndimage

    weights = significance[:, 0].detach().float().clamp(min=1e-3).cpu().numpy()
    masks = (label == LABEL_PEAK).cpu().numpy()
    offsets = np.zeros((len(masks), 2, *masks.shape[1:]), dtype=np.float32)
    for index, (mask, weight) in enumerate(zip(masks, weights, strict=True)):
        components, n = ndimage.label(mask, structure=np.ones((3, 3)))
        if n == 0:
            continue
        centres = np.array(ndimage.center_of_mass(weight, components, range(1, n + 1)))
        pixels = np.nonzero(mask)
        offsets[index][:, *pixels] = (centres[components[pixels] - 1] - np.stack(pixels, axis=1)).T
    return torch.from_numpy(offsets).to(label.device)


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    good: Tensor,
    *,
    mse_weight: float = 0.4,
    kl_weight: float = 0.4,
    focal_weight: float = 0.2,
    temperature: float = 2.0,
    logit_limit: float = 8.0,
) -> Tensor:
    """Return how far a student's logits are from its teacher's, over good pixels.

    ``mse_weight`` times the squared difference of the logits, both cut off at ± ``logit_limit``: a certain "no" need
    not be repeated to the digit, and would outweigh all that is in doubt. Plus ``kl_weight`` times T² times the
    divergence KL(teacher ‖ student) of the two-class distributions at temperature T (Hinton et al. 2015,
    section 2), plus ``focal_weight`` times the focal loss on the teacher's more probable class.

    Parameters
    ----------
    student, teacher : Tensor
        (n, c, ss, fs); channel 0 is the logit of "peak".
    good : Tensor
        (n, ss, fs), bool.
    mse_weight, kl_weight, focal_weight, temperature, logit_limit : float
        Weights of the three parts, temperature T, and where logits are cut off.

    """
    ours, theirs = student[:, 0].float(), teacher[:, 0].float().detach()
    squared = (ours.clamp(-logit_limit, logit_limit) - theirs.clamp(-logit_limit, logit_limit)).square()
    divergence = temperature**2 * _two_class_divergence(theirs / temperature, ours / temperature)
    soft = ((mse_weight * squared + kl_weight * divergence) * good).sum() / good.sum().clamp(min=1)
    argmax = torch.where(good, (theirs > 0).to(torch.uint8), LABEL_IGNORE)
    return soft + focal_weight * focal_loss(student, argmax)


def _two_class_divergence(p_logit: Tensor, q_logit: Tensor) -> Tensor:
    """KL(p ‖ q) of two Bernoulli distributions given by logits."""
    p = torch.sigmoid(p_logit)
    return p * (functional.logsigmoid(p_logit) - functional.logsigmoid(q_logit)) + (1 - p) * (
        functional.logsigmoid(-p_logit) - functional.logsigmoid(-q_logit)
    )
