"""What a live stream writes at its end, out of the parts that it kept on disk."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.hits import MIN_PEAKS
from peaknet_pipeline.infer.live_parts import CxiSink, image_type
from peaknet_pipeline.infer.masks import MaskFile
from peaknet_pipeline.infer.parts import Parts, open_parts
from peaknet_pipeline.infer.sinks import ParquetSink, PeakSink
from peaknet_pipeline.types import BoolArray, Geometry


@dataclass(frozen=True)
class LiveOutputs:
    """Peak table, CXI file with frames and peaks, and the network's masks, as far as they are wanted.

    With ``hits_only``, frames with at least ``min_peaks`` peaks only.
    """

    table: Path | None = None
    cxi: Path | None = None
    masks: Path | None = None
    hits_only: bool = False
    min_peaks: int = MIN_PEAKS

    @contextmanager
    def kept(self, recipe: str) -> Iterator[Parts | None]:
        """Give the parts that are kept beside the first output until the block has ended well; None without outputs."""
        first = self.table or self.cxi or self.masks
        if first is None:
            yield None
            return
        wanted = [name for name, path in dataclasses.asdict(self).items() if path]
        folder = first.with_name(f".{first.name}.stream")
        with open_parts(
            folder, recipe=f"{recipe} {wanted} {self.min_peaks}", n_frames=None, keep_others=True
        ) as parts:
            yield parts

    def write(
        self, parts: Parts, geometry: Geometry, bad_pixels: BoolArray, provenance: Mapping[str, str]
    ) -> dict[str, Any]:
        """Write everything that is in parts; return figures.

        Raises
        ------
        StreamError
            The disk is full, or refuses.

        """
        sinks: list[PeakSink] = []
        if self.table is not None:
            sinks.append(ParquetSink(self.table, extra=provenance))
        if self.masks is not None:
            least = self.min_peaks if self.hits_only else 0
            sinks.append(MaskFile(self.masks, geometry.stack_shape, min_peaks=least, extra=provenance))
        if self.cxi is None:
            _join(parts, sinks)
            return {}
        dtype = image_type(parts) or np.dtype(np.float32)
        images = CxiSink(self.cxi, geometry, bad_pixels, dtype=dtype, provenance=provenance)
        _join(parts, [*sinks, images])
        return {"cxi_clipped_peaks": images.n_clipped_peaks}


def _join(parts: Parts, sinks: list[PeakSink]) -> None:
    try:
        parts.join(sinks)
    except OSError as error:
        raise StreamError(
            "the stream's outputs cannot be written",
            where=error.filename,
            found=error.strerror or error,
            remedy=f"What was found is kept in {parts.folder.parent}. Make room, and the same command goes on.",
        ) from error
