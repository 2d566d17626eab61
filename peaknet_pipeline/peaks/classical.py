"""The classical finders by name, which the commands, the assets, the live stream and the reference read.

A new finder takes two files: its own, with its parameters, its rules and its :class:`ClassicalFinder`, and this list.
"""

from peaknet_pipeline.params import composed
from peaknet_pipeline.peaks.droplet import DROPLET
from peaknet_pipeline.peaks.finder import ClassicalFinder
from peaknet_pipeline.peaks.peakfinder8 import PEAKFINDER8

CLASSICAL: dict[str, ClassicalFinder] = {finder.name: finder for finder in (PEAKFINDER8, DROPLET)}
"""Every classical finder; the first is taken where none is named."""

ClassicalParams = composed(
    "ClassicalParams",
    "What any classical finder takes; parameters of one that the experiment doesn't use are refused.",
    [finder.parameters for finder in CLASSICAL.values()],
)
