"""What can be chosen about a stream on a Ray cluster."""

from dataclasses import dataclass

from peaknet_pipeline.infer.params import StreamParams
from peaknet_pipeline.params import Parameters, declared, parameter


@dataclass(frozen=True)
class RayParams(Parameters):
    """How a run is streamed by Ray actors."""

    address: str = parameter("local", meaning="Ray cluster (auto, host:port, ray://…); local starts one here")
    producers: int = parameter(1, meaning="actors that read", ge=1)
    consumers: int = parameter(1, meaning="Ray actors that find peaks, one per GPU", ge=1)
    threads_per_consumer: int = parameter(
        1, meaning="threads of each consumer; 2 overlap transfer, network and decoding on a GPU", ge=1
    )
    writers: int = parameter(1, meaning="Ray actors that write", ge=1)
    batch_frames: int = declared(StreamParams, "batch_frames")
    in_flight: int = parameter(8, meaning="batches under way at most", ge=1)
    gpus_per_consumer: float = parameter(0.0, meaning="GPUs that Ray reserves for each consumer", ge=0)
    cpus_per_actor: float = parameter(0.0, meaning="CPUs that Ray reserves for each actor", ge=0)
    max_restarts: int = parameter(10, meaning="how often Ray restarts an actor that died", ge=0)
    max_retries: int = parameter(3, meaning="how often Ray repeats a batch whose actor died", ge=0)
