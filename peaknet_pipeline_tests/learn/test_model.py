"""The network family: published parameter counts, any panel shape, nothing learnt from padding."""

import pytest
import torch

from peaknet_pipeline.errors import ModelError, ParameterError
from peaknet_pipeline.learn.config import SCALES, ModelConfig, named_scale
from peaknet_pipeline.learn.model import PRIOR, build_model, count_parameters
from peaknet_pipeline.learn.networks.convnext import GlobalResponseNorm

PUBLISHED_MILLIONS = {
    "atto": 3.7,
    "femto": 5.2,
    "pico": 9.1,
    "nano": 15.6,
    "tiny": 28.6,
    "base": 89,
    "large": 198,
    "huge": 660,
}
"""ConvNeXt V2 sizes as published (Woo et al. 2023, table 15): the encoder with ImageNet's 1000-class head."""

SMALL = ("yocto", "zepto", "edge-small", "edge", "edge-large")


@pytest.mark.parametrize("scale", PUBLISHED_MILLIONS)
def test_encoder_has_the_published_number_of_parameters(scale: str) -> None:
    width = SCALES[scale].dims[-1]
    with_classifier = count_parameters(SCALES[scale])["encoder"] + 1000 * width + 1000
    assert with_classifier / 1e6 == pytest.approx(PUBLISHED_MILLIONS[scale], rel=0.01)


@pytest.mark.parametrize(("scale", "millions"), [("atto", 13), ("huge", 673)])
def test_reference_layout_has_about_the_published_total(scale: str, millions: float) -> None:
    assert count_parameters(SCALES[scale])["total"] / 1e6 == pytest.approx(millions, rel=0.01)


def test_scales_grow_from_a_few_thousand_parameters() -> None:
    teachers = [
        count_parameters(SCALES[name])["total"]
        for name in ("yocto", "zepto", "zepto-wide", *PUBLISHED_MILLIONS)
    ]
    assert teachers == sorted(teachers)
    assert count_parameters(SCALES["edge"])["total"] < 40_000


@pytest.mark.parametrize("scale", SMALL)
@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (64, 64), (37, 90)])
def test_any_panel_shape_gives_logits_of_that_shape(scale: str, shape: tuple[int, int]) -> None:
    model = build_model(SCALES[scale]).eval()
    with torch.inference_mode():
        logits = model(torch.randn(2, 1, *shape))
    assert logits.shape == (2, 1, *shape)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("scale", ["yocto", "edge-large"])
def test_gradients_reach_every_parameter(scale: str) -> None:
    model = build_model(SCALES[scale])
    model(torch.randn(1, 1, 50, 41)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_edge_network_sees_only_its_neighbourhood() -> None:
    model = build_model(SCALES["edge-large"], seed=3).eval()
    x = torch.randn(1, 1, 96, 96)
    changed = x.clone()
    changed[..., 60:, :] = 9.0
    with torch.inference_mode():
        difference = (model(x) - model(changed))[..., :16, :]
    assert float(difference.abs().max()) == 0


def test_response_norm_is_that_of_the_valid_positions_alone() -> None:
    norm = GlobalResponseNorm(6)
    _wake_response_norms(torch.nn.ModuleDict({"response": norm}))
    x = torch.randn(2, 5, 7, 6)
    valid = torch.zeros(2, 5, 7, 1)
    valid[:, :4, :5] = 1
    torch.testing.assert_close(norm(x, valid)[:, :4, :5], norm(x[:, :4, :5].contiguous(), None))


def test_values_of_padding_never_count() -> None:
    model = build_model(SCALES["yocto"], seed=3).eval()
    _wake_response_norms(model)
    x = torch.randn(1, 1, 61, 47)
    with torch.inference_mode():
        own = model(x)
        by_hand = model(
            torch.nn.functional.pad(x, (0, 1, 0, 3)),
            torch.nn.functional.pad(torch.ones_like(x), (0, 1, 0, 3)),
        )
    torch.testing.assert_close(own, by_hand[..., :61, :47])


def test_panels_of_a_batch_do_not_see_each_other() -> None:
    model = build_model(SCALES["yocto"], seed=3).eval()
    x = torch.randn(3, 1, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=1e-4)


def test_untrained_network_expects_few_peaks() -> None:
    for scale in ("yocto", "edge"):
        with torch.inference_mode():
            probability = torch.sigmoid(build_model(SCALES[scale])(torch.zeros(1, 1, 64, 64)))
        assert PRIOR / 3 < float(probability.mean()) < PRIOR * 3


def test_edge_family_has_no_layer_at_full_resolution() -> None:
    model = build_model(SCALES["edge-large"])
    sides = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    model(torch.zeros(1, 1, 64, 64))
    assert max(sides) == 64 // model.config.stem


def test_offsets_add_two_channels() -> None:
    assert build_model(named_scale("edge", offsets=True))(torch.zeros(1, 1, 9, 9)).shape == (1, 3, 9, 9)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = build_model(SCALES["edge"], seed=1), build_model(SCALES["edge"], seed=1)
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match="wrong input shape"):
        build_model(SCALES["edge"])(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ModelError, match="same stages"):
        ModelConfig(depths=(1, 2), dims=(8,))
    with pytest.raises(ModelError, match="no such scale"):
        named_scale("giga")
    with pytest.raises(ParameterError, match="unknown parameter 'width'"):
        ModelConfig.from_mapping({"width": 3})


def _wake_response_norms(model: torch.nn.Module) -> None:
    """Response normalisation starts as the identity; give it something to do."""
    for name, value in model.named_parameters():
        if "response" in name:
            torch.nn.init.normal_(value)
