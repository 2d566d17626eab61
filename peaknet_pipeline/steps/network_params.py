"""What can be chosen when the network finds peaks: detection, stream and output, composed."""

import dataclasses
from dataclasses import dataclass
from typing import Self

import torch

from peaknet_pipeline.infer.engine import choose_device
from peaknet_pipeline.infer.memory import fit_batch, fit_finders
from peaknet_pipeline.infer.params import DecodeParams, EngineParams, OutputParams, StreamParams
from peaknet_pipeline.infer.ray_params import RayParams
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import FrameArray


@dataclass(frozen=True)
class DetectionParams(Parameters):
    """What the network counts as a peak, and where it runs."""

    threshold: float | None = parameter(
        None, meaning="decision threshold; the model card's without it", ge=0, le=1
    )
    min_pix: int = parameter(1, meaning="smallest peak", unit="px", ge=1)
    max_pix: int = parameter(200, meaning="largest peak", unit="px", ge=1)
    min_snr: float = parameter(1.0, meaning="smallest SNR of a peak; 0 keeps every one", ge=0)
    min_neighbour: float = parameter(
        3.0,
        meaning="least height of a peak's highest pixel and of the highest next to it, which a hot pixel lacks; 0 keeps all",
        unit="sigma",
        ge=0,
    )
    device: str = parameter("auto", meaning="torch device; auto takes the first GPU, else the CPU")
    precision: str = parameter(
        "auto", meaning="arithmetic of the network", choices=("auto", "float32", "bfloat16")
    )

    def parts(self) -> tuple[DecodeParams, EngineParams]:
        """Return the parameter sets of decoding and engine."""
        return (
            DecodeParams(
                min_pix=self.min_pix,
                max_pix=self.max_pix,
                min_snr=self.min_snr,
                min_neighbour=self.min_neighbour,
            ),
            EngineParams(device=self.device, precision=self.precision),
        )


@dataclass(frozen=True)
class InferenceParams(DetectionParams):
    """How the network runs over a run."""

    batch_frames: int = parameter(0, meaning="frames per batch; 0 fits them to the memory", ge=0)
    readers: int = parameter(2, meaning="reader threads, or Ray producers", ge=1)
    stream: str = parameter(
        "local", meaning="threads of this process, or Ray actors", choices=("local", "ray")
    )
    ray_address: str = parameter("local", meaning="Ray cluster; local starts one here")
    consumers: int = parameter(1, meaning="Ray actors that find peaks, one per GPU", ge=1)
    writers: int = parameter(1, meaning="Ray actors that write", ge=1)
    gpus_per_consumer: float = parameter(0.0, meaning="GPUs that Ray reserves for each consumer", ge=0)
    hits_only: bool = parameter(False, meaning="write hits only (data reduction)")
    min_peaks: int = parameter(15, meaning="least peaks of a hit", ge=1)
    images: str = parameter(
        "link",
        meaning="images of the CXI file: a link to the raw run, or a copy that needs it no more",
        choices=("link", "copy"),
    )
    segmentation: bool = parameter(False, meaning="also write the network's segmentation masks")

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

    def output(self) -> OutputParams:
        """Return the parameter set of what is written."""
        return OutputParams(
            hits_only=self.hits_only,
            min_peaks=self.min_peaks,
            images=self.images,
            segmentation=self.segmentation,
        )

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

    def _device(self) -> torch.device:
        """Return the kind of device where peaks are found; on Ray it may be another machine's."""
        on_ray_gpu = self.stream == "ray" and self.gpus_per_consumer > 0
        return torch.device("cuda") if on_ray_gpu else choose_device(self.device)


@dataclass(frozen=True)
class RunInferenceParams(InferenceParams):
    """How the network runs over a run of the chain, and which one."""

    model: str = parameter("", meaning="registered model version; the champion without it")
