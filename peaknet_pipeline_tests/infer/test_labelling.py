"""Components are those of scipy.ndimage.label with a 3x3 structure, numbers included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from peaknet_pipeline.infer.labelling import label_components
from peaknet_pipeline.infer.labelling_torch import label_components_torch
from peaknet_pipeline.types import BoolArray

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def reference(mask: BoolArray) -> tuple[np.ndarray, int]:
    return ndimage.label(mask, np.ones((3, 3)))


def spiral(side: int) -> BoolArray:
    """One-pixel-wide spiral: the longest way that labels can have to travel."""
    mask = np.zeros((side, side), dtype=bool)
    row, column, step = 0, 0, (0, 1)
    mask[0, 0] = True
    for length in [side - 1, *(n for m in range(side - 1, 1, -2) for n in (m, m))]:
        for _ in range(length):
            row, column = row + step[0], column + step[1]
            mask[row, column] = True
        step = (step[1], -step[0])
    return mask


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_numba_labels_are_scipys(mask: BoolArray) -> None:
    labels, n_components = label_components(mask)
    expected, n_expected = reference(mask)
    assert n_components == n_expected
    np.testing.assert_array_equal(labels, expected)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_torch_labels_are_scipys(mask: BoolArray) -> None:
    labels, counts = label_components_torch(torch.from_numpy(mask)[None])
    expected, n_expected = reference(mask)
    assert counts.tolist() == [n_expected]
    np.testing.assert_array_equal(labels[0].numpy(), expected)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.41, 0.5, 0.9])
def test_large_random_masks_near_the_percolation_threshold(density: float) -> None:
    masks = np.random.default_rng(7).random((3, 185, 200)) < density
    labels, counts = label_components_torch(torch.from_numpy(masks))
    for panel, mask in enumerate(masks):
        expected, n_expected = reference(mask)
        numba_labels, n_components = label_components(mask)
        assert n_components == n_expected == counts[panel]
        np.testing.assert_array_equal(numba_labels, expected)
        np.testing.assert_array_equal(labels[panel].numpy(), expected)


def test_spiral_is_one_component() -> None:
    mask = spiral(41)
    assert reference(mask)[1] == 1
    for turned in (mask, mask[::-1], mask.T, mask[:, ::-1].copy()):
        labels, n_components = label_components(turned)
        assert n_components == 1
        np.testing.assert_array_equal(labels, turned.astype(int))
        torch_labels, _ = label_components_torch(torch.from_numpy(turned.copy())[None])
        np.testing.assert_array_equal(torch_labels[0].numpy(), turned.astype(int))


def test_components_never_cross_panels() -> None:
    masks = torch.zeros((2, 4, 4), dtype=torch.bool)
    masks[0, -1] = True
    masks[1, 0] = True
    labels, counts = label_components_torch(masks)
    assert counts.tolist() == [1, 1]
    assert labels.amax() == 1


def test_rows_do_not_wrap_around() -> None:
    mask = np.zeros((3, 5), dtype=bool)
    mask[0, -1] = mask[1, 0] = True
    assert label_components(mask)[1] == 2
    assert label_components_torch(torch.from_numpy(mask)[None])[1].tolist() == [2]


def test_empty_mask_has_no_component() -> None:
    assert label_components(np.zeros((5, 0), dtype=bool))[1] == 0
    labels, counts = label_components_torch(torch.zeros((2, 5, 6), dtype=torch.bool))
    assert not labels.any()
    assert counts.tolist() == [0, 0]
