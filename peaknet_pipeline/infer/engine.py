"""Raw frames to peaks with a trained network, on whichever device there is."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.errors import ModelError, StreamError
from peaknet_pipeline.infer.decode import decode_frames, logit_of
from peaknet_pipeline.infer.decode_torch import decode_tensors
from peaknet_pipeline.infer.memory import fit_chunk
from peaknet_pipeline.infer.params import DecodeParams, EngineParams
from peaknet_pipeline.infer.transfer import Uploader
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.learn.edge_cpu import EdgeOnCpu
from peaknet_pipeline.learn.normalise import normalise
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import PEAKS, BoolArray, Float32Array, FrameArray, PeakTable

HostLogits = Callable[[FrameArray, BoolArray], Float32Array]
"""Raw panels and their good pixels, (n, ss, fs), to logits, all on the host."""

Normaliser = Callable[[Tensor, Tensor], Tensor]
"""(n, ss, fs) raw pixels and (n, ss, fs) good pixels to the network's (n, 1, ss, fs) input."""


@dataclass(frozen=True)
class Network:
    """What the engine needs of a trained network: ``model(x, good) -> logits``, its input, its threshold.

    ``host_logits`` is a way to the same logits that is faster on CPUs with bfloat16 arithmetic, where there is one.
    """

    model: torch.nn.Module
    normalise: Normaliser
    threshold: float
    name: str = ""
    host_logits: HostLogits | None = None

    @classmethod
    def from_checkpoint(cls, loaded: LoadedModel, *, threshold: float | None = None) -> Self:
        """Take a checkpoint; ``threshold`` overrides the card's."""

        def prepare(pixels: Tensor, good: Tensor) -> Tensor:
            return normalise(pixels, good, loaded.normalisation)

        chosen = loaded.card.threshold if threshold is None else threshold
        edge = loaded.model.config.family == "edge"
        host_logits = EdgeOnCpu(loaded.model, loaded.normalisation).logits if edge else None
        return cls(loaded.model, prepare, chosen, loaded.card.name, host_logits)


class Engine:
    """Finds the peaks of raw frames with a network; callable from several threads.

    On a GPU every calling thread has its own stream and pinned buffer, so that two threads overlap one
    batch's transfer with the other's computation; only peak lists come back. On the CPU the decoding is
    compiled code.

    Parameters
    ----------
    network : Network
    bad_pixels : (n_panels, ss, fs) bool
        True = bad.
    decode : DecodeParams, optional
    params : EngineParams, optional
    flag_bad : callable, optional
        Frames (n, n_panels, ss, fs) to a mask of the same shape, or None: pixels that are bad in single
        frames.

    """

    def __init__(
        self,
        network: Network,
        *,
        bad_pixels: BoolArray,
        decode: DecodeParams | None = None,
        params: EngineParams | None = None,
        flag_bad: Callable[[FrameArray], BoolArray | None] | None = None,
    ) -> None:
        self.params = params or EngineParams()
        self.decode = decode or DecodeParams()
        self.network = network
        self.device = choose_device(self.params.device)
        self.dtype = choose_dtype(self.params.precision, self.device)
        self._host_logits = network.host_logits if self._runs_on_host() else None
        self._cut = logit_of(network.threshold)
        self._bad_pixels = np.array(bad_pixels, dtype=np.bool_)
        self._bad = torch.from_numpy(self._bad_pixels).to(self.device)
        self._flag_bad = flag_bad
        self._model = _prepare(network.model, self.device, self.params)
        self._upload = Uploader(self.device)
        self._chunk = 0
        self._lock = threading.Lock()

    def __call__(self, frames: FrameArray, first_frame: int = 0) -> PeakTable:
        """Find the peaks of raw frames (n, n_panels, ss, fs), numbered from ``first_frame``.

        Raises
        ------
        StreamError
            Frames of another shape than the mask.
        ModelError
            The network's output has another shape than its input.

        """
        self._check(frames)
        if not len(frames):
            return empty_table(PEAKS)
        bad = self._frame_mask(frames)
        if self.device.type == "cpu":
            logits = self.logits(frames, bad)
            return decode_frames(
                frames,
                logits,
                self._bad_pixels if bad is None else bad,
                threshold=self.network.threshold,
                params=self.decode,
                first_frame=first_frame,
                n_threads=self.params.decode_threads,
            )
        return self._find_on_device(frames, bad, first_frame)

    def logits(self, frames: FrameArray, bad: BoolArray | None = None) -> Float32Array:
        """Return the logit of "peak" of every pixel, (n, n_panels, ss, fs) float32, on the host."""
        self._check(frames)
        if self._host_logits is not None:
            mask = self._bad_pixels if bad is None else bad
            good_pixels = ~np.broadcast_to(mask, frames.shape).reshape(-1, *frames.shape[2:])
            return self._host_logits(frames.reshape(good_pixels.shape), good_pixels).reshape(frames.shape)
        with self._upload.lane() as lane, torch.inference_mode():
            pixels, good = self._panels(lane.upload(frames), bad)
            result = self._forward(pixels, good).reshape(frames.shape).cpu()
        return result.numpy()

    def _find_on_device(self, frames: FrameArray, bad: BoolArray | None, first_frame: int) -> PeakTable:
        with self._upload.lane() as lane, torch.inference_mode():
            pixels, good = self._panels(lane.upload(frames), bad)
            logits = self._forward(pixels, good)
            return decode_tensors(
                pixels, logits, good, self._cut, frames.shape[1], params=self.decode, first_frame=first_frame
            )

    def _panels(self, frames: Tensor, bad: BoolArray | None) -> tuple[Tensor, Tensor]:
        """Flatten frames to panels (m, ss, fs) float32 and their good pixels."""
        mask = self._bad.expand(frames.shape) if bad is None else torch.from_numpy(bad).to(self.device)
        pixels = frames.flatten(0, 1).to(torch.float32)
        return pixels, ~mask.flatten(0, 1) & torch.isfinite(pixels)

    def _forward(self, pixels: Tensor, good: Tensor) -> Tensor:
        """Run the network chunk by chunk: (m, ss, fs) pixels to (m, ss, fs) float32 logits."""
        logits = torch.empty(pixels.shape, dtype=torch.float32, device=self.device)
        chunk = self._panels_per_chunk(pixels, good)
        for first in range(0, len(pixels), chunk):
            part = slice(first, first + chunk)
            logits[part] = self._run_network(pixels[part], good[part])
        return logits

    def _run_network(self, pixels: Tensor, good: Tensor) -> Tensor:
        x = self.network.normalise(pixels, good)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            output: Tensor = self._model(x.contiguous(memory_format=torch.channels_last), good.unsqueeze(1))
        if output.ndim != 4 or output.shape[0] != len(pixels) or output.shape[2:] != pixels.shape[1:]:
            raise ModelError(
                "the network does not give one logit per pixel",
                where=self.network.name or None,
                expected=f"(n, 1 or more, ss, fs) for {tuple(pixels.shape)}",
                found=tuple(output.shape),
            )
        return output[:, 0].float()

    def _panels_per_chunk(self, pixels: Tensor, good: Tensor) -> int:
        """Return how many panels go through the network at once; measured at the first call."""
        with self._lock:
            if not self._chunk:
                self._chunk = fit_chunk(
                    lambda: self._run_network(pixels[:1], good[:1]),
                    pixels[0].numel(),
                    self.device,
                    self.params,
                )
        return self._chunk

    def _runs_on_host(self) -> bool:
        """Tell whether the network's own way on CPUs is used: as told, or where the CPU computes in bfloat16."""
        wanted = self.params.precision == "bfloat16" or (self.params.precision == "auto" and has_bfloat16())
        return self.device.type == "cpu" and wanted

    def _frame_mask(self, frames: FrameArray) -> BoolArray | None:
        flagged = self._flag_bad(frames) if self._flag_bad else None
        return None if flagged is None else np.asarray(flagged | self._bad_pixels)

    def _check(self, frames: FrameArray) -> None:
        if frames.ndim != 4 or frames.shape[1:] != self._bad_pixels.shape:
            raise StreamError(
                "frames do not fit the mask of bad pixels",
                expected=f"(n, {', '.join(map(str, self._bad_pixels.shape))})",
                found=frames.shape,
                remedy="Make the engine with the mask of this run.",
            )


def choose_device(name: str) -> torch.device:
    """Return the named device; ``auto`` is the first GPU, else the CPU. ModelError if it isn't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError("no such device", found=name, expected="auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("no GPU that torch can use", found=name, remedy="Choose the device cpu or auto.")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic's dtype; ``auto`` is bfloat16 on a GPU, float32 elsewhere."""
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def _prepare(model: torch.nn.Module, device: torch.device, params: EngineParams) -> Any:
    model = model.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return torch.compile(model, dynamic=False) if params.compile else model
