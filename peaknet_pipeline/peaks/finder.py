"""What a classical finder is to everything that finds peaks with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peaknet_pipeline.params import Parameters
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import BoolArray, FrameArray, Geometry

FindPeaks = Callable[[FrameArray, int], PeakTable]
"""Finds the peaks of frames, (n, n_panels, ss, fs), given the number of the first."""


@dataclass(frozen=True)
class ClassicalFinder:
    """A finder that follows rules, without a network.

    Attributes
    ----------
    name : str
        What commands and ``experiment.yaml`` call it.
    meaning : str
        What it is, in a few words.
    section : str
        The section of ``experiment.yaml`` that tunes it.
    parameters : type of Parameters
    make : callable
        Prepares it for one detector: (parameters, geometry, bad pixels (n_panels, ss, fs)) → :data:`FindPeaks`.

    """

    name: str
    meaning: str
    section: str
    parameters: type[Parameters]
    make: Callable[[Any, Geometry, BoolArray], FindPeaks]
