"""What can be chosen when the network finds peaks: detection, stream and output, composed."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from peaknet_pipeline.devices import choose_device
from peaknet_pipeline.infer.memory import fit_batch, fit_finders
from peaknet_pipeline.infer.params import DecodeParams, EngineParams, OutputParams, StreamParams
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.params import declared, parameter
from peaknet_pipeline.types import FrameArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DetectionParams(EngineParams, DecodeParams):
    """What the network counts as a peak, and where it runs."""

    threshold: float | None = parameter(
        None, meaning="decision threshold; the model card's without it", ge=0, le=1
    )

    def parts(self) -> tuple[DecodeParams, EngineParams]:
        """Return the parameter sets of decoding and engine."""
        return DecodeParams.part_of(self), EngineParams.part_of(self)


@dataclass(frozen=True)
class InferenceParams(OutputParams, DetectionParams):
    """How the network runs over a run, and what is written."""

    batch_frames: int = parameter(0, meaning="frames per batch; 0 fits them to the memory", ge=0)
    readers: int = declared(StreamParams, "readers")
    stream: str = parameter(
        "local", meaning="threads of this process, or Ray actors", choices=("local", "ray")
    )
    ray_address: str = declared(RayParams, "address")
    consumers: int = declared(RayParams, "consumers")
    writers: int = declared(RayParams, "writers")
    gpus_per_consumer: float = declared(RayParams, "gpus_per_consumer")

    def fit(self, frame: FrameArray, n_frames: int) -> Self:
        """Return the parameters with the batch size chosen for a raw frame (1, n_panels, ss, fs) and ``n_frames``."""
        if self.batch_frames:
            return self
        in_flight = self.ray().in_flight if self.stream == "ray" else self.local().in_flight
        fitted = fit_batch(frame, self._device(), in_flight=in_flight, n_frames=n_frames)
        return dataclasses.replace(self, batch_frames=fitted)

    def local(self) -> StreamParams:
        """Return the parameter set of a stream in this process."""
        finders = fit_finders(self._device())
        return StreamParams(batch_frames=max(self.batch_frames, 1), readers=self.readers, finders=finders)

    def ray(self) -> RayParams:
        """Return the parameter set of a stream on Ray."""
        threads = fit_finders(self._device())
        return RayParams(
            address=self.ray_address,
            producers=self.readers,
            consumers=self.consumers,
            threads_per_consumer=threads,
            writers=self.writers,
            batch_frames=max(self.batch_frames, 1),
            in_flight=2 * (self.readers + self.consumers * threads + self.writers) + 2,
            gpus_per_consumer=self.gpus_per_consumer,
        )

    @property
    def finds_on_gpu(self) -> bool:
        """Whether the network runs on a GPU, here or on Ray."""
        return self._device().type == "cuda"

    def _device(self) -> "torch.device":
        """Return the kind of device where peaks are found; on Ray it may be another machine's."""
        import torch

        on_ray_gpu = self.stream == "ray" and self.gpus_per_consumer > 0
        return torch.device("cuda") if on_ray_gpu else choose_device(self.device)


@dataclass(frozen=True)
class RunInferenceParams(InferenceParams):
    """How the network runs over a run of the chain, and which one."""

    model: str = parameter("", meaning="registered model version; the champion without it")
