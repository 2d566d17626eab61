"""What can be chosen about inference: decoding, engine and stream."""

from dataclasses import dataclass

from peaknet_pipeline.devices import DeviceParams
from peaknet_pipeline.hits import HitParams
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import MAX_CXI_PEAKS


@dataclass(frozen=True)
class DecodeParams(Parameters):
    """How a logit map becomes peaks. The threshold comes from the model card."""

    min_pix: int = parameter(1, meaning="smallest peak", unit="px", ge=1)
    max_pix: int = parameter(200, meaning="largest peak", unit="px", ge=1)
    min_snr: float = parameter(1.0, meaning="smallest SNR of a peak; 0 keeps every one", ge=0)
    min_neighbour: float = parameter(
        3.0,
        meaning="least height of a peak's highest pixel and of the highest next to it, which a hot pixel lacks; 0 keeps all",
        unit="sigma",
        ge=0,
    )
    background_radius: int = parameter(
        6, meaning="radius of the disc of the local background", unit="px", ge=2, le=30
    )
    guard: int = parameter(
        1, meaning="pixels around any peak that stay out of the background", unit="px", ge=0, le=5
    )
    split_distance: int = parameter(
        0,
        meaning="a component with maxima at least this far apart is split; 0 never splits",
        unit="px",
        ge=0,
        le=10,
    )
    max_peaks: int = parameter(MAX_CXI_PEAKS, meaning="peaks kept per frame, the best scores first", ge=1)


@dataclass(frozen=True)
class EngineParams(DeviceParams):
    """How the network runs."""

    precision: str = parameter(
        "auto",
        meaning="arithmetic of the network; auto is bfloat16 on a GPU and float32 on the CPU",
        choices=("auto", "float32", "bfloat16"),
    )
    chunk_pixels: int = parameter(
        0, meaning="pixels per forward pass; 0 fits them to the device's memory", unit="px", ge=0
    )
    memory_share: float = parameter(
        0.6, meaning="share of a GPU's free memory that a forward pass may fill", gt=0, le=1
    )
    compile: str = parameter(
        "auto",
        meaning="compile the network for the panel shape (slow start, faster run); auto does on a GPU",
        choices=("auto", "yes", "no"),
    )
    cuda_graphs: bool = parameter(True, meaning="record the network as a CUDA graph on a GPU, and replay it")
    decode_threads: int = parameter(1, meaning="threads that decode on the CPU", ge=1)


@dataclass(frozen=True)
class StreamParams(Parameters):
    """How a run is streamed."""

    batch_frames: int = parameter(8, meaning="frames per batch", ge=1)
    readers: int = parameter(2, meaning="reader threads, or Ray producers", ge=1)
    finders: int = parameter(
        1, meaning="threads that find peaks; 2 overlap transfer and network on a GPU", ge=1
    )
    queue_batches: int = parameter(4, meaning="batches waiting between two stages at most", ge=1)

    @property
    def in_flight(self) -> int:
        """Batches under way at most."""
        return 2 * self.queue_batches + self.readers + self.finders


@dataclass(frozen=True)
class OutputParams(HitParams):
    """What is written of what is found."""

    hits_only: bool = parameter(False, meaning="write hits only (data reduction)")
    images: str = parameter(
        "link",
        meaning="images of the CXI file: a link to the raw run, or a copy that needs it no more",
        choices=("link", "copy"),
    )
    segmentation: bool = parameter(False, meaning="also write the network's segmentation masks")
