"""A local network's cells are the same computed alone, in blocks and sparsely as in a whole panel."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.blocks import choose_blocks, cut_blocks, find_candidates, near_pairs
from peaknet_pipeline.learn.config import SCALES
from peaknet_pipeline.learn.crops import CropBatch
from peaknet_pipeline.learn.host.sparse import SparseOnCpu
from peaknet_pipeline.learn.model import PeakNet, build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters, normalise
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.learn.train import train_model
from peaknet_pipeline.learn.transforms import TransformParameters
from peaknet_pipeline.learn.validate import predict_panels, validate_model
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray
from peaknet_pipeline_tests.learn.toys import ToyCrops, draw_panels


@pytest.fixture(scope="module")
def network() -> PeakNet:
    return build_model(SCALES["local"], seed=2).eval()


def draw(shape: tuple[int, int, int], *, seed: int = 0, n_spots: int = 12) -> tuple[FrameArray, BoolArray]:
    """Poisson panels with spots of 3x3 px, some in their corners, and 3 % bad pixels."""
    rng = np.random.default_rng(seed)
    images = rng.poisson(6, shape).astype(np.uint16)
    for panel in images:
        spots = rng.integers(0, (shape[1] - 3, shape[2] - 3), size=(n_spots, 2)).tolist()
        for ss, fs in [*spots, (0, 0), (shape[1] - 3, shape[2] - 3)]:
            panel[ss : ss + 3, fs : fs + 3] += rng.poisson(30, (3, 3)).astype(np.uint16)
    return images, rng.random(shape) > 0.03


def dense(network: PeakNet, images: FrameArray, good: BoolArray) -> Float32Array:
    with torch.inference_mode():
        return np.asarray(network(normalise(torch.from_numpy(images), torch.from_numpy(good)))[:, 0].numpy())


@pytest.mark.parametrize("scale", ["local-small", "local", "local-teacher"])
def test_a_block_with_its_margin_gives_the_same_as_the_whole_panel(scale: str) -> None:
    network = build_model(SCALES[scale], seed=2).eval()
    x = torch.randn(2, 1, 96, 80)
    margin = network.config.reach + 4
    with torch.inference_mode():
        whole = network(x)
        part = network(x[..., 32 - margin : 48 + margin, 20 - margin : 36 + margin], margin=margin)
    torch.testing.assert_close(part, whole[..., 32:48, 20:36], atol=1e-5, rtol=1e-4)


def test_margins_that_do_not_suffice_are_refused(network: PeakNet) -> None:
    with pytest.raises(ModelError, match="too narrow"):
        network(torch.zeros(1, 1, 32, 32), margin=network.config.reach - 4)
    with pytest.raises(ModelError, match="without a fixed reach"):
        build_model(SCALES["edge"])(torch.zeros(1, 1, 32, 32), margin=12)


@pytest.mark.parametrize("shape", [(2, 128, 192), (3, 61, 139)])
@pytest.mark.parametrize(
    ("dtype", "atol", "rtol"), [(torch.bfloat16, 0.06, 0.02), (torch.float32, 1e-4, 1e-4)]
)
@pytest.mark.parametrize("pair", [3.0, -100.0])
def test_sparse_cells_equal_the_dense_ones(
    network: PeakNet, shape: tuple[int, int, int], dtype: torch.dtype, atol: float, rtol: float, pair: float
) -> None:
    images, good = draw(shape)
    logits = SparseOnCpu(network, pair=pair, dtype=dtype).logits(images, good)
    computed = logits > -99
    np.testing.assert_allclose(logits[computed], dense(network, images, good)[computed], atol=atol, rtol=rtol)
    assert not computed[~good].any()
    if pair < 0:
        assert computed[good].all()
    else:
        assert 0.01 < computed.mean() < 0.3


@pytest.mark.parametrize("shape", [(2, 64, 96), (2, 61, 95)])
def test_cells_near_pairs_are_computed_and_no_others(network: PeakNet, shape: tuple[int, int, int]) -> None:
    images, good = draw(shape, seed=3)
    images[1] = 6
    z = normalise(torch.from_numpy(images), torch.from_numpy(good))[:, 0]
    near = near_pairs(z, 3.0, network.config.stem).numpy()
    computed = SparseOnCpu(network, pair=3.0, dtype=torch.float32).logits(images, good) > -99
    np.testing.assert_array_equal(computed, near & good)
    assert 0.01 < near[0].mean() < 0.5
    assert not near[1].any()


def test_a_crowded_panel_that_is_computed_whole_is_asked_at_the_same_cells(network: PeakNet) -> None:
    images, good = draw((2, 61, 95), seed=6)
    z = normalise(torch.from_numpy(images), torch.from_numpy(good))[:, 0]
    near = near_pairs(z, 1.001, network.config.stem).numpy()
    computed = SparseOnCpu(network, pair=1.001, dtype=torch.float32).logits(images, good) > -99
    assert 0.5 < near.mean() < 0.95
    np.testing.assert_array_equal(computed, near & good)


def test_cells_across_the_centres_of_blocks_are_those_of_the_whole_panel() -> None:
    network = build_model(replace(SCALES["local-small"], stem=3), seed=2).eval()
    images, good = draw((1, 120, 150), seed=7)
    images = (images * np.linspace(1, 3, 150)).astype(np.uint16)
    logits = SparseOnCpu(network, pair=2.0, dtype=torch.float32).logits(images, good)
    computed = logits > -99
    np.testing.assert_allclose(logits[computed], dense(network, images, good)[computed], atol=1e-4, rtol=1e-4)
    assert 0.01 < computed.mean() < 0.3


def test_near_a_pair_is_the_cell_of_each_of_its_pixels_and_of_their_neighbours() -> None:
    z = torch.zeros(1, 24, 24)
    z[0, 12, 7:9] = 4.0
    z[0, 2, 2] = 9.0
    cells = near_pairs(z, 3.0, 4)[0, ::4, ::4]
    assert cells.nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]


def test_damaged_values_are_bad_pixels_to_the_sparse_path_too(network: PeakNet) -> None:
    images, good = draw((1, 64, 96), seed=4)
    floats = images.astype(np.float32)
    floats[0, 10:13, 10:13], floats[0, 40, 40:42] = np.nan, np.inf
    masked = good & np.isfinite(floats)
    sparse = SparseOnCpu(network, pair=3.0, dtype=torch.float32)
    np.testing.assert_array_equal(sparse.logits(floats, good)[masked], sparse.logits(floats, masked)[masked])
    assert (sparse.logits(floats, np.zeros_like(good)) == -100).all()


def test_only_local_networks_are_computed_cell_by_cell() -> None:
    with pytest.raises(ModelError, match="not a local network"):
        SparseOnCpu(build_model(SCALES["edge"]), pair=3.0)


def test_candidates_are_pairs_and_never_lone_pixels() -> None:
    z = torch.zeros(1, 40, 40)
    z[0, 10, 10] = 9.0
    z[0, 20, 20], z[0, 21, 21] = 5.0, 3.0
    z[0, 30, 30:32] = 2.0
    assert find_candidates(z, 2.5).nonzero().tolist() == [[0, 20, 20]]


def test_blocks_hold_their_candidates_and_stay_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(3, 64, 48)
    spots = [(0, 20, 30), (1, 33, 17), (2, 0, 47), (2, 63, 0)]
    for n, ss, fs in spots:
        z[n, ss, fs] = 6.0
        z[n, ss, fs + (1 if fs < 47 else -1)] = 4.0
    chosen = choose_blocks(z, level=3.0, per_crop=4, n_background=2, cell=4, margin=0, generator=generator)
    boxes = list(zip(*(x.tolist() for x in chosen), strict=True))
    assert len(boxes) == len(spots) + 3 * 2
    assert all(ss % 4 == fs % 4 == 0 and 0 <= ss <= 56 and 0 <= fs <= 40 for _, ss, fs in boxes)
    for n, ss, fs in spots:
        inner = 2 if 8 < ss < 56 else 0
        assert any(
            m == n and top + inner <= ss < top + 8 - inner and left <= fs < left + 8 for m, top, left in boxes
        )


def test_cut_blocks_are_the_pixels_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 64, 48, generator=generator)
    batch = CropBatch(image, image > 0.1, (image > 0.9).to(torch.uint8))
    chosen = choose_blocks(
        image, level=0.5, per_crop=6, n_background=2, cell=4, margin=12, generator=generator
    )
    cut, wide = cut_blocks(batch, image[:, None], chosen, side=8, margin=12)
    padded = torch.nn.functional.pad(image, (12,) * 4)
    for i, (n, ss, fs) in enumerate(zip(*(x.tolist() for x in chosen), strict=True)):
        assert torch.equal(cut.image[i], image[n, ss : ss + 8, fs : fs + 8])
        assert torch.equal(cut.label[i], batch.label[n, ss : ss + 8, fs : fs + 8])
        assert torch.equal(wide[i, 0], padded[n, ss : ss + 32, fs : fs + 32])


def test_a_network_taught_in_blocks_finds_the_spots_of_whole_panels() -> None:
    toys = ToyCrops(200)
    crops = [toys[index] for index in range(len(toys))]
    params = TrainParameters(steps=300, batch_size=16, blocks_per_crop=8, validate_every=300)
    result = train_model(build_model(SCALES["local"]), crops, params=params, transforms=TransformParameters())
    panels = draw_panels(6, seed=2, shape=(150, 170), n_spots=30)
    assert validate_model(result.model, panels, NormaliseParameters()).f1 > 0.8


def test_networks_of_other_families_cannot_learn_in_blocks() -> None:
    with pytest.raises(ModelError, match="without a fixed reach"):
        train_model(
            build_model(SCALES["edge"]), ToyCrops(4), params=TrainParameters(steps=1, blocks_per_crop=4)
        )


def test_validation_asks_near_pairs_and_leaves_the_panels_as_they_are(network: PeakNet) -> None:
    panels = draw_panels(2, seed=5, shape=(96, 96), n_spots=8)
    masks = [panel.good.copy() for panel in panels]
    first, second = (
        predict_panels(network, panels, NormaliseParameters(), min_neighbour=3.0) for _ in range(2)
    )
    for panel, mask, one, other in zip(panels, masks, first, second, strict=True):
        np.testing.assert_array_equal(panel.good, mask)
        np.testing.assert_array_equal(one, other)
        assert 0 < (one > 0).mean() < 0.5
