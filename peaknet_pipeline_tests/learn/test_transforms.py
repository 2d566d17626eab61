"""Augmentation keeps image, mask and label together, and the statistics of photons."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.learn.crops import CropBatch, collate_crops
from peaknet_pipeline.learn.transforms import (
    TransformParameters,
    add_background,
    augment_batch,
    mask_randomly,
    scale_gain,
    thin_photons,
    turn_crops,
)
from peaknet_pipeline_tests.learn.toys import ToyCrops


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy_batch(n: int = 8) -> CropBatch:
    crops = ToyCrops(n)
    return collate_crops([crops[i] for i in range(n)])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), width=st.sampled_from([12, 9]))
def test_turning_moves_image_mask_and_label_alike(seed: int, width: int) -> None:
    image = torch.arange(4 * 12 * width, dtype=torch.float32).reshape(4, 12, width)
    batch = CropBatch(image, image % 3 == 0, (image % 5 == 0).to(torch.uint8))
    turned = turn_crops(batch, seeded(seed))
    assert turned.image.shape == image.shape
    assert torch.equal(turned.good, turned.image % 3 == 0)
    assert torch.equal(turned.label, (turned.image % 5 == 0).to(torch.uint8))
    assert torch.equal(turned.image.flatten(1).sort().values, image.flatten(1).sort().values)


def test_all_eight_symmetries_occur() -> None:
    image = torch.arange(9.0).reshape(1, 3, 3).expand(200, 3, 3)
    turned = turn_crops(CropBatch(image, image > -1, image.to(torch.uint8)), seeded(0))
    assert len({tuple(x.flatten().tolist()) for x in turned.image}) == 8


def test_thinning_keeps_poisson_statistics() -> None:
    image = torch.from_numpy(np.random.default_rng(0).poisson(20.0, (6, 128, 128)).astype(np.float32)) * 3.5
    params = TransformParameters(thinning_probability=1, least_kept=0.3, adu_per_photon=3.5)
    thinned = thin_photons(image, params, seeded(1)) / 3.5
    for crop in thinned:
        assert 0.3 * 20 * 0.95 < float(crop.mean()) < 20.5
        assert abs(float(crop.var() / crop.mean()) - 1) < 0.06


def test_added_background_brings_its_own_noise() -> None:
    image = torch.full((5, 128, 128), 40.0)
    params = TransformParameters(background_probability=1, background_range=1)
    more = add_background(image, params, seeded(2)) - image
    for crop in more:
        residual = crop[:, 1:] - crop[:, :-1]
        assert 0 < float(crop.mean()) <= 60
        assert abs(float(residual.var() / (2 * crop.mean())) - 1) < 0.1


def test_gain_stays_within_its_range() -> None:
    factors = scale_gain(torch.ones(500, 1, 1), TransformParameters(gain_range=3), seeded(0)).flatten()
    assert 1 / 3 <= float(factors.min()) < 0.4
    assert 2.5 < float(factors.max()) <= 3


def test_masking_turns_labels_into_ignore_and_never_heals_pixels() -> None:
    batch = toy_batch()
    masked = mask_randomly(batch, TransformParameters(mask_probability=1, dropout_probability=1), seeded(0))
    assert bool((masked.good <= batch.good).all())
    assert bool((masked.label[~masked.good] == 255).all())
    assert torch.equal(masked.label[masked.good], batch.label[masked.good])
    assert all(int(m.sum()) < int(b.sum()) for m, b in zip(masked.good, batch.good, strict=True))


def test_augmentation_follows_from_the_generator_and_leaves_its_input_alone() -> None:
    batch = toy_batch()
    before = [part.clone() for part in batch]
    params = TransformParameters(thinning_probability=1, background_probability=1, mask_probability=1)
    first, second = augment_batch(batch, params, seeded(4)), augment_batch(batch, params, seeded(4))
    other = augment_batch(batch, params, seeded(5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.image, other.image)
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))
