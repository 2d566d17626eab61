"""What the first file of a live stream says, which holds for the whole stream, and whether the others agree."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from peaknet_pipeline.geometry.slabs import mask_layers
from peaknet_pipeline.infer.arrivals import Arrival, FileFacts
from peaknet_pipeline.types import Geometry

NOTHING = FileFacts()


def peek(
    arrivals: Iterator[Arrival],
    geometry: Geometry,
    say: Callable[[str], None],
    *,
    masked: bool = False,
    kept: FileFacts | None = None,
) -> tuple[Iterator[Arrival], FileFacts]:
    """Wait for the first frames; return all frames, and what the first one's file says, which holds for all.

    What an earlier stream ``kept``, which this one goes on from, holds before that. ``say`` is told where a mask is missing
    (unless frames are ``masked`` anyway) or changes. Without any frame, the facts are those kept, or ``NOTHING``.
    """
    first = next(arrivals, None)
    if first is None:
        return iter(()), kept or NOTHING
    facts = kept or first.facts or FileFacts()
    if facts.bad_pixels is None and mask_layers(geometry) and not masked:
        say("the geometry names a mask, which these frames come without: give it as --mask")
    return _same_mask(itertools.chain([first], arrivals), facts, say), facts


def _same_mask(
    arrivals: Iterable[Arrival], facts: FileFacts, say: Callable[[str], None]
) -> Iterator[Arrival]:
    known, mask = facts, facts.bad_pixels
    for arrival in arrivals:
        if arrival.facts is not None and arrival.facts is not known:
            known = arrival.facts
            if mask is not None and not np.array_equal(known.bad_pixels, mask):  # type: ignore[arg-type]
                say(
                    f"frame {arrival.numbers[0]} comes with another mask; the first file's is used throughout"
                )
        yield arrival
