"""The engine gives what normalise → network → decode give, whatever the dtype, chunk or device path."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from peaknet_pipeline.devices import choose_device
from peaknet_pipeline.errors import ModelError, StreamError
from peaknet_pipeline.infer.decode import decode_frames
from peaknet_pipeline.infer.engine import Engine, choose_dtype
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.params import DecodeParams, EngineParams, StreamParams
from peaknet_pipeline.infer.stream import stream_run
from peaknet_pipeline.learn.checkpoint import LoadedModel, ModelCard
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters, normalise
from peaknet_pipeline.types import BoolArray, FrameArray, Geometry
from peaknet_pipeline_tests.infer.fake_network import threshold_network
from peaknet_pipeline_tests.infer.fakes import ArrayRun, gaussian_frames

SPOTS = np.array([[0, 0, 12.3, 20.8, 200.0], [1, 1, 30.0, 7.4, 80.0], [3, 0, 21.6, 33.1, 150.0]])
SHAPE = (4, 2, 40, 48)
GOOD: BoolArray = np.zeros(SHAPE[1:], dtype=bool)


def frames_as(dtype: str) -> FrameArray:
    return gaussian_frames(SPOTS, SHAPE).astype(dtype)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", ">u2", "int16", "uint32", "int32", "float32", "float64"]
)
def test_spots_are_found_in_any_dtype(dtype: str) -> None:
    frames = np.minimum(frames_as("float64"), 250).astype(dtype)
    table = Engine(threshold_network(), bad_pixels=GOOD)(frames, first_frame=100)
    assert table[["frame", "panel"]].to_numpy().tolist() == [[100, 0], [101, 1], [103, 0]]
    np.testing.assert_allclose(table[["ss", "fs"]], SPOTS[:, 2:4], atol=0.15)


def test_engine_is_normalise_network_decode() -> None:
    loaded = LoadedModel(
        build_model(named_scale("edge-small"), seed=1).eval(),
        NormaliseParameters(compression=9.0),
        ModelCard("m", threshold=0.01),
    )
    frames = np.random.default_rng(0).poisson(5.0, SHAPE).astype(np.uint16)
    bad = np.random.default_rng(1).random(SHAPE[1:]) < 0.03
    good = torch.from_numpy(~np.broadcast_to(bad, SHAPE)).flatten(0, 1)
    with torch.inference_mode():
        pixels = torch.from_numpy(frames.astype(np.float32)).flatten(0, 1)
        x = normalise(pixels, good, loaded.normalisation)
        logits = loaded.model(x, good.unsqueeze(1))[:, 0].reshape(SHAPE).numpy()
    expected = decode_frames(frames, logits, bad, threshold=0.01)
    assert len(expected) > 10
    found = Engine(Network.from_checkpoint(loaded), bad_pixels=bad, params=EngineParams(precision="float32"))(
        frames
    )
    np.testing.assert_allclose(
        found.drop(columns="inv_d"), expected.drop(columns="inv_d"), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("chunk", [1, 40 * 48 * 3, 10**9])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    frames = frames_as("float32")
    expected = Engine(threshold_network(), bad_pixels=GOOD)(frames)
    found = Engine(threshold_network(), bad_pixels=GOOD, params=EngineParams(chunk_pixels=chunk))(frames)
    assert found.equals(expected)


def test_device_path_agrees_with_the_compiled_path() -> None:
    """The branch that a GPU takes, driven on the CPU."""
    frames = frames_as("int32")
    engine = Engine(threshold_network(), bad_pixels=GOOD)
    on_device = engine._find_on_device(frames, 7).peaks
    compiled = engine(frames, 7)
    np.testing.assert_allclose(on_device.drop(columns="inv_d"), compiled.drop(columns="inv_d"), rtol=1e-5)


def test_bad_pixels_of_single_frames_are_left_out() -> None:
    frames = frames_as("float32")
    frames[0] += 5000.0
    table = Engine(threshold_network(), bad_pixels=GOOD, geometry=Geometry((), flag_more_than=4000.0))(frames)
    assert table["frame"].tolist() == [1, 3]


def test_nan_pixels_neither_spread_nor_count() -> None:
    frames = frames_as("float32")
    frames[0, 0, :3] = np.nan
    table = Engine(threshold_network(), bad_pixels=GOOD)(frames)
    assert table["frame"].tolist() == [0, 1, 3]


def test_no_frames_and_blank_frames_give_an_empty_table() -> None:
    engine = Engine(threshold_network(), bad_pixels=GOOD)
    assert len(engine(np.zeros((0, *SHAPE[1:]), np.uint16))) == 0
    assert len(engine(np.zeros(SHAPE, np.uint16))) == 0


def test_decode_parameters_reach_the_decoder() -> None:
    engine = Engine(threshold_network(), bad_pixels=GOOD, decode=DecodeParams(min_pix=20))
    assert len(engine(frames_as("float32"))) == 0


def test_frames_of_another_detector_are_refused() -> None:
    with pytest.raises(StreamError, match="do not fit the mask"):
        Engine(threshold_network(), bad_pixels=GOOD)(np.zeros((1, 2, 40, 47), np.uint16))


def test_a_network_of_another_resolution_is_refused() -> None:
    network = Network(torch.nn.MaxPool2d(2), lambda pixels, good: pixels.unsqueeze(1), 0.5)
    model: Callable[..., torch.Tensor] = network.model.forward
    network.model.forward = lambda x, good: model(x)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="one logit per pixel"):
        Engine(network, bad_pixels=GOOD)(frames_as("float32"))


def test_bfloat16_finds_the_same_spots() -> None:
    loaded = LoadedModel(
        build_model(named_scale("edge-small"), seed=1).eval(),
        NormaliseParameters(),
        ModelCard("m", threshold=0.5),
    )
    frames = frames_as("float32")
    logits = [
        Engine(Network.from_checkpoint(loaded), bad_pixels=GOOD, params=EngineParams(precision=p)).logits(
            frames
        )
        for p in ("float32", "bfloat16")
    ]
    assert np.abs(logits[0]).max() > 1.0
    np.testing.assert_allclose(logits[1], logits[0], atol=0.1)


def test_host_path_knows_bad_pixels_of_single_frames() -> None:
    loaded = LoadedModel(
        build_model(named_scale("edge-small"), seed=1).eval(),
        NormaliseParameters(),
        ModelCard("m", threshold=0.001),
    )
    frames = frames_as("uint16")
    frames[1] = 65535
    engine = Engine(
        Network.from_checkpoint(loaded), bad_pixels=GOOD, params=EngineParams(precision="bfloat16"),
        decode=DecodeParams(max_pix=10**6), geometry=Geometry((), flag_equal=65535.0),
    )  # fmt: skip
    assert sorted(set(engine(frames)["frame"])) == [0, 2, 3]


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(ModelError, match="no such device"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no GPU"):
            choose_device("cuda")


def test_automatic_precision_follows_the_device() -> None:
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float32", torch.device("cuda")) == torch.float32


def test_stream_with_the_engine_equals_the_engine() -> None:
    frames = np.concatenate([frames_as("uint16")] * 5)
    engine = Engine(threshold_network(), bad_pixels=GOOD)
    params = StreamParams(batch_frames=3, readers=2, finders=2)
    streamed, _ = stream_run(lambda: ArrayRun(frames), engine, params=params)
    assert streamed.equals(engine(frames))
