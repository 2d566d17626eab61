"""What a network looks like: one frozen configuration for both families, and the named scales."""

from dataclasses import dataclass, replace

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.params import Parameters, parameter

FAMILIES = ("convnextv2-bifpn", "edge", "local")


@dataclass(frozen=True)
class ModelConfig(Parameters):
    """A network's architecture; with the weights it makes a checkpoint.

    ``convnextv2-bifpn``: a ConvNeXt V2 encoder, 1x1 laterals to ``features`` channels, ``n_fusion_blocks``
    BiFPN blocks, lateral heads summed, full-resolution logits. ``edge``: space-to-depth by ``stem``, plain
    3x3 convolutions, pixel shuffle. ``local``: the same at one resolution, ``depths[i]`` convolutions of ``dims[i]`` channels
    and ``pointwise`` layers; what it says of a cell depends on its neighbourhood alone, so single cells can be computed.
    """

    family: str = parameter("convnextv2-bifpn", meaning="architecture", choices=FAMILIES)
    depths: tuple[int, ...] = parameter((2, 2, 6, 2), meaning="blocks per stage")
    dims: tuple[int, ...] = parameter((40, 80, 160, 320), meaning="channels per stage", unit="channels")
    stem: int = parameter(
        4, meaning="pixels per side that the first layer takes together", unit="px", ge=1, le=16
    )
    features: int = parameter(
        512, meaning="channels of the fusion blocks (convnextv2-bifpn)", unit="channels", ge=1
    )
    n_fusion_blocks: int = parameter(4, meaning="BiFPN blocks (convnextv2-bifpn)", ge=0)
    head_features: int = parameter(
        160,
        meaning="channels in which the lateral heads are summed (convnextv2-bifpn)",
        unit="channels",
        ge=1,
    )
    pointwise: tuple[int, ...] = parameter(
        (), meaning="channels of the 1x1 layers after the convolutions (local)", unit="channels"
    )
    offsets: bool = parameter(
        False, meaning="also predict the offset (ss, fs) from each pixel to its peak's centre"
    )

    def __post_init__(self) -> None:
        """Check ranges and that the stages are described consistently.

        Raises
        ------
        ModelError
            Stages of unequal count, or none, or of no channels.

        """
        super().__post_init__()
        if len(self.depths) != len(self.dims) or not self.dims or min(self.dims) < 1 or min(self.depths) < 0:
            raise ModelError(
                "depths and dims do not describe the same stages",
                where="ModelConfig",
                expected="as many depths as dims, at least one of each, all positive",
                found=f"depths {self.depths}, dims {self.dims}",
            )

    @property
    def n_outputs(self) -> int:
        """Channels of the output: one logit, and two offsets if asked for."""
        return 3 if self.offsets else 1

    @property
    def stride(self) -> int:
        """Coarsest stride of the network, pixels; inputs are padded to its multiples."""
        return int(self.stem if self.family == "local" else self.stem * 2 ** (len(self.dims) - 1))

    @property
    def reach(self) -> int:
        """How far around a cell a ``local`` network looks, pixels.

        Raises
        ------
        ModelError
            Another family.

        """
        if self.family != "local":
            raise ModelError("a network without a fixed reach", expected="family local", found=self.family)
        return int(self.stem * sum(self.depths))


def _reference(depths: tuple[int, ...], dims: tuple[int, ...]) -> ModelConfig:
    return ModelConfig(depths=depths, dims=dims)


_EDGE = ModelConfig(
    family="edge", depths=(1, 0), dims=(32, 64), features=1, n_fusion_blocks=0, head_features=1
)


def _local(dims: tuple[int, ...], pointwise: tuple[int, ...] = ()) -> ModelConfig:
    depths = (1,) * len(dims)
    return replace(_EDGE, family="local", depths=depths, dims=dims, pointwise=pointwise)


SCALES: dict[str, ModelConfig] = {
    "yocto": ModelConfig(
        depths=(1, 1, 1), dims=(24, 40, 64), features=32, n_fusion_blocks=1, head_features=32
    ),
    "zepto": ModelConfig(
        depths=(2, 2, 2), dims=(40, 64, 96), features=64, n_fusion_blocks=1, head_features=48
    ),
    "zepto-wide": ModelConfig(
        depths=(2, 2, 2), dims=(80, 112, 160), features=128, n_fusion_blocks=1, head_features=96
    ),
    "atto": _reference((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": _reference((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": _reference((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": _reference((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": _reference((3, 3, 9, 3), (96, 192, 384, 768)),
    "base": _reference((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": _reference((3, 3, 27, 3), (192, 384, 768, 1536)),
    "huge": _reference((3, 3, 27, 3), (352, 704, 1408, 2816)),
    "local-small": _local((32, 32)),
    "local": _local((64, 64, 64)),
    "local-teacher": _local((128, 128, 256), (1024, 1024)),
    "edge-small": replace(_EDGE, depths=(1,), dims=(32,)),
    "edge": _EDGE,
    "edge-large": replace(_EDGE, depths=(2, 2), dims=(48, 64)),
}
"""Named scales. atto to huge carry the published encoders with F = 512 and four BiFPN blocks."""


def named_scale(name: str, *, offsets: bool = False) -> ModelConfig:
    """Return the configuration of a named scale.

    Raises
    ------
    ModelError
        No such scale.

    """
    if name not in SCALES:
        raise ModelError("no such scale", where=name, expected=f"one of {', '.join(SCALES)}")
    return replace(SCALES[name], offsets=offsets)
