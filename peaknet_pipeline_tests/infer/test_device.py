"""The sequence that a GPU runs, driven on the CPU: it never looks at the pixels, and gives the host's logits and peaks."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from peaknet_pipeline.geometry.usable import value_range
from peaknet_pipeline.infer.calibrate_torch import DeviceCalibration
from peaknet_pipeline.infer.device import DevicePanels, PanelStep
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.params import DecodeParams, EngineParams
from peaknet_pipeline.infer.transfer import as_float32, as_tensor
from peaknet_pipeline.learn.checkpoint import LoadedModel, ModelCard
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters, estimate_background, estimate_static
from peaknet_pipeline.runs.calibrate import CalibrationParams, calibrate_frames, make_calibration
from peaknet_pipeline.types import FrameArray
from peaknet_pipeline_tests.infer.fake_network import threshold_network
from peaknet_pipeline_tests.infer.fakes import gaussian_frames

CPU = torch.device("cpu")


def edge_network(threshold: float = 0.01, scale: str = "edge-small") -> Network:
    model = build_model(named_scale(scale), seed=1).eval()
    return Network.from_checkpoint(
        LoadedModel(model, NormaliseParameters(), ModelCard("m", threshold=threshold))
    )


def poisson_frames(shape: tuple[int, ...], mean: float = 5.0) -> FrameArray:
    return np.random.default_rng(0).poisson(mean, shape).astype(np.uint16)


@pytest.mark.parametrize("scale", ["edge", "local", "atto"])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.int32, torch.float32])
def test_the_sequence_runs_without_values(scale: str, dtype: torch.dtype) -> None:
    """Meta tensors have none: whatever looked at a value, and so waited for a GPU, would fail."""
    with torch.device("meta"):
        model = build_model(named_scale(scale)).eval()
        raw, bad = torch.zeros((3, 64, 96), dtype=dtype), torch.zeros((3, 64, 96), dtype=torch.bool)
    network = Network.from_checkpoint(LoadedModel(model, NormaliseParameters(), ModelCard("m")))
    step = PanelStep(network, model, torch.float32, value_range(high=4e9, equal=3.0), 3.0)
    with torch.inference_mode():
        panels = step.static(raw, bad)
    assert panels.logits.shape == panels.pixels.shape == panels.good.shape == raw.shape
    assert (panels.logits.dtype, panels.pixels.dtype, panels.good.dtype) == (
        torch.float32,
        torch.float32,
        torch.bool,
    )
    assert panels.unsure.shape == (3,)


class Waits(TorchDispatchMode):
    """Counts the operations for which a host must wait for its device."""

    WAITING = ("nonzero", "item", "is_nonzero", "_local_scalar_dense", "equal", "masked_select", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name in self.WAITING:
            self.seen[name] += 1
        if name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.seen["masked index"] += 1
        return function(*args, **(kwargs or {}))


def test_decoding_waits_for_its_lists_only() -> None:
    """Once for the number of peak pixels; the number of peaks and the peaks come as lists."""
    engine = Engine(edge_network(), bad_pixels=np.zeros((2, 64, 64), dtype=bool))
    frames = poisson_frames((3, 2, 64, 64))
    with torch.inference_mode():
        panels = engine._run(as_tensor(frames))
        assert len(engine._decode(panels, 3, 0, with_pixels=False).peaks) > 10
        with Waits() as waits:
            engine._decode(panels, 3, 0, with_pixels=True)
    assert waits.seen == {"nonzero": 1}


def test_fixed_steps_estimate_as_the_careful_ones() -> None:
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.poisson(4.0, (4, 70, 90)).astype(np.float32))
    good = torch.from_numpy(rng.random((4, 70, 90)) > 0.1)
    good[1, :40] = False
    good[2] = False
    background, unsure = estimate_static(images, good)
    assert not unsure.any()
    expected = estimate_background(images, good)
    torch.testing.assert_close(background.mean, expected.mean, rtol=0, atol=0)
    torch.testing.assert_close(background.noise, expected.noise, rtol=0, atol=0)


def test_panels_that_fixed_steps_cannot_normalise_are_named() -> None:
    images = torch.full((2, 64, 64), 7.0)
    images[0] += torch.from_numpy(np.random.default_rng(0).normal(0, 1, (64, 64)).astype(np.float32))
    images[1] = 0.0
    _, unsure = estimate_static(images, torch.ones(images.shape, dtype=torch.bool))
    assert unsure.tolist() == [False, True]


@pytest.mark.parametrize(
    ("scale", "min_neighbour", "threshold"),
    [("edge-small", 0.0, 0.01), ("local", 2.0, 0.01), ("local", 0.0, 0.011)],
)
def test_device_finds_what_the_host_finds_also_in_panels_that_need_care(
    scale: str, min_neighbour: float, threshold: float
) -> None:
    frames = poisson_frames((5, 3, 64, 96))
    frames[2, 1] = 0
    frames[2, 1, 30, 40] = 90
    bad = np.zeros(frames.shape[1:], dtype=bool)
    bad[0, 10:20] = True
    bad[2] = True
    engine = Engine(
        edge_network(threshold, scale),
        bad_pixels=bad,
        decode=DecodeParams(min_snr=0.0, min_neighbour=min_neighbour),
        params=EngineParams(precision="float32"),
    )
    host, device = engine.segment(frames, 7), engine._find_on_device(frames, 7, with_pixels=True)
    assert len(host.peaks) > 20
    assert (host.peaks["frame"] == 9).any()
    np.testing.assert_allclose(
        device.peaks.drop(columns="inv_d"), host.peaks.drop(columns="inv_d"), rtol=2e-4, atol=2e-3
    )
    assert host.pixels is not None
    assert device.pixels is not None
    for frame in range(5):
        np.testing.assert_array_equal(device.pixels.mask(frame), host.pixels.mask(frame))


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 99])
def test_a_chunk_that_is_filled_up_changes_nothing(chunk: int) -> None:
    spots = np.array([[0, 0, 12.3, 20.8, 200.0], [1, 1, 30.0, 7.4, 80.0], [2, 0, 21.6, 33.1, 150.0]])
    frames = gaussian_frames(spots, (3, 2, 40, 48)).astype(np.float32)
    params = EngineParams(chunk_pixels=chunk * 40 * 48)
    good = np.zeros((2, 40, 48), dtype=bool)
    expected = Engine(threshold_network(), bad_pixels=good)(frames)
    found = Engine(threshold_network(), bad_pixels=good, params=params)._find_on_device(frames, 0).peaks
    np.testing.assert_allclose(found.drop(columns="inv_d"), expected.drop(columns="inv_d"), rtol=1e-5)


class Greedy(torch.nn.Module):
    """Has memory for two panels."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[int] = []

    def forward(self, x: Tensor, good: Tensor | None = None) -> Tensor:
        self.tried.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("no memory")
        return x


def test_chunks_that_do_not_fit_the_memory_are_halved() -> None:
    model = Greedy()
    network = Network(model, lambda pixels, good: pixels.unsqueeze(1), 0.5)
    step = PanelStep(network, model, torch.float32)
    panels = DevicePanels(step, CPU, EngineParams(chunk_pixels=8 * 16))
    raw = torch.arange(5 * 16, dtype=torch.float32).reshape(5, 4, 4)
    bad = torch.zeros(raw.shape, dtype=torch.bool)
    torch.testing.assert_close(panels(raw, bad).logits, raw)
    torch.testing.assert_close(panels(raw, bad).logits, raw)
    assert model.tried == [8, 4, 2, 2, 2, 2, 2, 2]


def test_a_panel_that_does_not_fit_the_memory_is_an_error() -> None:
    class Hopeless(torch.nn.Module):
        def forward(self, x: Tensor, good: Tensor | None = None) -> Tensor:
            raise torch.OutOfMemoryError("no memory at all")

    network = Network(Hopeless(), lambda pixels, good: pixels.unsqueeze(1), 0.5)
    panels = DevicePanels(
        PanelStep(network, network.model, torch.float32), CPU, EngineParams(chunk_pixels=64)
    )
    with pytest.raises(torch.OutOfMemoryError, match="at all"):
        panels(torch.zeros((3, 4, 4)), torch.zeros((3, 4, 4), dtype=torch.bool))


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "uint32", "int16", "int32", "float32", "float64", ">u2"]
)
def test_raw_values_keep_their_value(dtype: str) -> None:
    values = np.array([0, 1, 127, 200, 40000, 70000, 4_000_000_000])
    raw = values[values <= (np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else np.inf)].astype(dtype)
    np.testing.assert_array_equal(as_float32(as_tensor(raw)).numpy(), raw.astype(np.float32))


@pytest.mark.parametrize("common_mode", ["none", "chip", "row", "column"])
def test_calibration_on_the_device_is_that_of_the_reader(common_mode: str) -> None:
    rng = np.random.default_rng(5)
    shape = (2, 40, 50)
    pedestal = rng.normal([[[[3000]]], [[[14000]]], [[[13000]]]], 30, (3, *shape))
    gain = rng.normal([[[[41]]], [[[-1.5]]], [[[-0.1]]]], 0.01, (3, *shape))
    gain[0, 1, 3, 4] = 0
    code = rng.choice([0, 0, 0, 0, 1, 2, 3], (3, *shape))
    raw = (rng.integers(2900, 3200, (3, *shape)) | (code << 14)).astype(np.uint16)
    calibration = make_calibration(pedestal, gain)
    params = CalibrationParams(
        common_mode=common_mode, chip_ss=16, chip_fs=20, common_mode_max_kev=3.0, common_mode_min_pixels=8
    )
    expected = calibrate_frames(raw, calibration, params)
    found = DeviceCalibration(calibration, params, CPU)(as_tensor(raw)).numpy()
    assert np.isnan(expected).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_engine_calibrates_raw_frames() -> None:
    shape = (1, 40, 48)
    spots = np.array([[0, 0, 12.3, 20.8, 200.0], [1, 0, 30.0, 7.4, 80.0]])
    kev = gaussian_frames(spots, (2, *shape)).astype(np.float32)
    raw = np.rint(100 + 40 * kev).astype(np.uint16)
    calibration = (
        make_calibration(np.full((3, *shape), 100.0), np.full((3, *shape), 40.0)),
        CalibrationParams(common_mode="none"),
    )
    good = np.zeros(shape, dtype=bool)
    expected = Engine(threshold_network(), bad_pixels=good)(kev)
    engine = Engine(threshold_network(), bad_pixels=good, calibration=calibration)
    for found in (engine(raw), engine._find_on_device(raw, 0).peaks):
        np.testing.assert_allclose(found[["fs", "ss"]], expected[["fs", "ss"]], atol=0.01)
        np.testing.assert_allclose(found["intensity"], expected["intensity"], rtol=0.01)
