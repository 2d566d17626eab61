"""Connected components on the device that holds the logits.

Only the peak pixels, a small part of a panel, take part: each looks up its eight neighbours by binary search
in the sorted list of peak pixels, then takes the smallest root among them and jumps along the roots, until
nothing changes. A component's root is its first pixel in raster order, so the numbering is that of
``scipy.ndimage.label``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDS = 4
"""Enough for components of a dozen pixels, and one to see that they are done."""


class Components(NamedTuple):
    """Peak pixels of a batch of panels with the components they belong to; all int64.

    ``pixels`` (k,) are flat indices into (n, ss, fs), ascending; ``roots`` (k,) give for each pixel the
    position in ``pixels`` of its component's first pixel; ``numbers`` (k,) count the components through the
    batch from 0.
    """

    pixels: Tensor
    roots: Tensor
    numbers: Tensor
    n_components: int


def label_components_torch(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Label 8-connected components of each panel.

    Parameters
    ----------
    mask : Tensor
        (n, ss, fs) bool, on any device.

    Returns
    -------
    labels : Tensor
        (n, ss, fs) int32, 0 outside; per panel identical to ``scipy.ndimage.label(mask, np.ones((3, 3)))``.
    counts : Tensor
        (n,) int64, components per panel.

    """
    found = find_components(mask)
    panel_size = mask.shape[1] * mask.shape[2]
    first = found.pixels[found.roots == torch.arange(len(found.pixels), device=mask.device)]
    counts = torch.bincount(first // max(panel_size, 1), minlength=mask.shape[0])
    before = torch.cumsum(counts, 0) - counts
    labels = torch.zeros(mask.numel(), dtype=torch.int32, device=mask.device)
    labels[found.pixels] = (found.numbers - before[found.pixels // max(panel_size, 1)] + 1).to(torch.int32)
    return labels.reshape(mask.shape), counts


def find_components(mask: Tensor) -> Components:
    """Join the True pixels of each panel, (n, ss, fs), that touch by side or corner."""
    pixels = mask.flatten().nonzero().flatten()
    if not len(pixels):
        return Components(pixels, pixels, pixels, 0)
    roots, n_components = _propagate(_neighbours(pixels, mask.shape[1], mask.shape[2]))
    is_root = roots == torch.arange(len(pixels), device=mask.device)
    numbers = (torch.cumsum(is_root, 0) - 1)[roots]
    return Components(pixels, roots, numbers, n_components)


def _neighbours(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return where each pixel's eight neighbours are in ``pixels``, (8, k); itself where there is none."""
    row, column = (pixels // width) % height, pixels % width
    own = torch.arange(len(pixels), device=pixels.device)
    found = []
    for ss, fs in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        target = pixels + ss * width + fs
        place = torch.searchsorted(pixels, target).clamp(max=len(pixels) - 1)
        inside = (row + ss >= 0) & (row + ss < height) & (column + fs >= 0) & (column + fs < width)
        found.append(torch.where(inside & (pixels[place] == target), place, own))
    return torch.stack(found)


def _propagate(neighbours: Tensor) -> tuple[Tensor, int]:
    """Return the smallest position reachable from each pixel, and the number of components.

    Whether anything still changes is asked once in :data:`ROUNDS` rounds, together with the number of components: peaks
    are small, so that this is mostly the only time that the device is waited for.
    """
    own = torch.arange(neighbours.shape[1], device=neighbours.device)
    roots = own
    while True:
        before = roots
        for _ in range(ROUNDS):
            before = roots
            smallest = torch.minimum(roots, roots[neighbours].amin(dim=0))
            # Hooking the old root onto the new one moves whole branches at once, jumping shortens them: long
            # components need a number of rounds that grows with the logarithm of their length.
            hooked = roots.scatter_reduce(0, roots, smallest, "amin", include_self=True)
            roots = hooked[hooked[torch.minimum(smallest, hooked)]]
        changed, n_components = torch.stack([(roots != before).sum(), (roots == own).sum()]).tolist()
        if not changed:
            return roots, int(n_components)
