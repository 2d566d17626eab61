"""Raw panels to logits on a device, without asking it anything on the way: a fixed sequence of steps for a fixed shape.

The sequence (conversion, flags, normalisation, network) runs on chunks of panels of one size, the last of which
is filled up. On a GPU it is compiled and recorded as a CUDA graph, once in each thread, and then replayed.
"""

import functools
import importlib.util
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, are_usable
from peaknet_pipeline.infer.memory import fit_chunk
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.params import EngineParams
from peaknet_pipeline.infer.transfer import as_float32
from peaknet_pipeline.learn.normalise import Background

WARM_UPS = 3
"""Runs before a recording, in which libraries choose their algorithms and take their memory."""

Step = Callable[[Tensor, Tensor], "Panels"]
Prepare = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Forward = Callable[[Tensor, Tensor, Background | None], Tensor]


class Panels(NamedTuple):
    """Panels on the device, (m, ss, fs) each, and which of them (m,) the fixed sequence cannot normalise."""

    pixels: Tensor
    good: Tensor
    logits: Tensor
    unsure: Tensor


@dataclass(frozen=True)
class PanelStep:
    """The sequence for one chunk: raw (c, ss, fs) and bad (c, ss, fs) to :class:`Panels`."""

    network: Network
    model: Any
    dtype: torch.dtype
    usable: UsableValues = ALL_VALUES
    min_neighbour: float = 0.0
    """Height of the pairs of pixels without which decoding drops a peak, sigma; 0: it drops none."""

    def static(
        self, raw: Tensor, bad: Tensor, *, prepare: Prepare | None = None, forward: Forward | None = None
    ) -> Panels:
        """Run without a branch that depends on what is in the pixels; its two passes may be given compiled."""
        prepare, forward = prepare or self.prepare, forward or self.forward
        pixels, good = prepare(raw, bad)
        if self.network.static is None:
            return Panels(pixels, good, forward(pixels, good, None), torch.zeros_like(good[:, 0, 0]))
        background, unsure = self.network.static.estimate(pixels, good)
        return Panels(pixels, good, forward(pixels, good, background), unsure)

    def exact(self, raw: Tensor, bad: Tensor) -> Panels:
        """Run with the normalisation that looks at the panels that need it."""
        pixels, good = self.prepare(raw, bad)
        return Panels(pixels, good, self.forward(pixels, good, None), torch.zeros_like(good[:, 0, 0]))

    def prepare(self, raw: Tensor, bad: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 pixels and which of them are good."""
        pixels = as_float32(raw)
        usable = self.usable.of(str(raw.dtype).removeprefix("torch."))
        return pixels, ~bad & are_usable(pixels, usable)

    def forward(self, pixels: Tensor, good: Tensor, background: Background | None) -> Tensor:
        """Normalise, by a background where there is one, and run the network: (c, ss, fs) to float32 logits."""
        static = self.network.static
        if background is None or static is None:
            x = self.network.normalise(pixels, good)
        else:
            x = static.apply(pixels, good, background)
        half = self.dtype == torch.bfloat16
        with torch.autocast(x.device.type, torch.bfloat16) if half else nullcontext():
            output: Tensor = self.model(x.contiguous(memory_format=torch.channels_last), good.unsqueeze(1))
        if output.ndim != 4 or output.shape[0] != len(x) or output.shape[2:] != x.shape[2:]:
            raise ModelError(
                "the network does not give one logit per pixel",
                where=self.network.name or None,
                expected=f"(n, 1 or more, ss, fs) for {tuple(x.shape)}",
                found=tuple(output.shape),
            )
        logits = output[:, 0].float()
        if self.network.near is None or self.min_neighbour <= 0:
            return logits
        return torch.where(self.network.near(x, self.min_neighbour), logits, -100.0)


class DevicePanels:
    """Runs :class:`PanelStep` over the panels of a batch, in chunks; callable from several threads.

    A chunk's size is measured at the first call. When the memory does not suffice after all, chunks are halved.
    """

    def __init__(self, step: PanelStep, device: torch.device, params: EngineParams) -> None:
        self._step, self._device, self._params = step, device, params
        self._chunk = 0
        self._lock = threading.Lock()
        self._recorded = threading.local()
        self._generation = 0
        self._run: Step = _compiled(step) if _compiles(params, device) else step.static

    def __call__(self, raw: Tensor, bad: Tensor, *, exact: bool = False) -> Panels:
        """Turn raw panels (m, ss, fs), bad where ``bad`` (m, ss, fs) says so, into logits."""
        while True:
            chunk = self._panels_per_chunk(raw, bad)
            try:
                return self._run_chunks(raw, bad, min(chunk, len(raw)) if exact else chunk, exact=exact)
            except torch.OutOfMemoryError:
                if chunk == 1:
                    raise
                self._halve(chunk)

    def _run_chunks(self, raw: Tensor, bad: Tensor, chunk: int, *, exact: bool) -> Panels:
        parts = []
        for first in range(0, len(raw), chunk):
            part_raw, part_bad = raw[first : first + chunk], bad[first : first + chunk]
            n = len(part_raw)
            if exact:
                parts.append(self._step.exact(part_raw, part_bad))
            else:
                done = self._run_static(_filled(part_raw, chunk, 0), _filled(part_bad, chunk, 1))
                # A recording's results lie where the next replay writes.
                keep = self._device.type == "cuda"
                parts.append(Panels(*(t[:n].clone() if keep else t[:n] for t in done)))
        return parts[0] if len(parts) == 1 else Panels(*(torch.cat(t) for t in zip(*parts, strict=True)))

    def _run_static(self, raw: Tensor, bad: Tensor) -> Panels:
        if self._device.type != "cuda" or not self._params.cuda_graphs:
            return self._run(raw, bad)
        key = (self._generation, tuple(raw.shape), raw.dtype)
        if getattr(self._recorded, "key", None) != key:
            with self._lock:
                self._recorded.replay = _record(self._run, raw, bad)
            self._recorded.key = key
        replay: Step = self._recorded.replay
        return replay(raw, bad)

    def _panels_per_chunk(self, raw: Tensor, bad: Tensor) -> int:
        with self._lock:
            if not self._chunk:
                self._chunk = fit_chunk(
                    lambda: self._step.static(raw[:1], bad[:1]), raw[0].numel(), self._device, self._params
                )
        return self._chunk

    def _halve(self, chunk: int) -> None:
        with self._lock:
            if self._chunk == chunk:
                self._chunk = chunk // 2
                self._generation += 1
        self._recorded.key = self._recorded.replay = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _filled(part: Tensor, chunk: int, value: int) -> Tensor:
    """Return the panels with constant ones added up to ``chunk``."""
    missing = chunk - len(part)
    return (
        torch.cat([part, torch.full_like(part[:1], value).expand(missing, *part.shape[1:])])
        if missing
        else part
    )


def _record(run: Step, raw: Tensor, bad: Tensor) -> Step:
    """Record ``run`` for this shape on the current stream; without a recording, as it is, if the GPU refuses."""
    static_raw, static_bad = raw.clone(), bad.clone()
    for _ in range(WARM_UPS):
        run(static_raw, static_bad)
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads go on using the GPU meanwhile, which is only an error in this one.
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            result = run(static_raw, static_bad)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        warnings.warn(f"no CUDA graph of the network, it runs step by step ({error})", stacklevel=2)
        return run

    def replay(raw: Tensor, bad: Tensor) -> Panels:
        static_raw.copy_(raw)
        static_bad.copy_(bad)
        graph.replay()
        return result

    return replay


def _compiled(step: PanelStep) -> Step:
    """Return the sequence with its passes over all pixels fused; the short steps on blocks stay as they are."""
    prepare: Prepare = torch.compile(step.prepare, dynamic=False)
    forward: Forward = torch.compile(step.forward, dynamic=False)
    return functools.partial(step.static, prepare=prepare, forward=forward)


def _compiles(params: EngineParams, device: torch.device) -> bool:
    if params.compile == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return params.compile == "yes"
