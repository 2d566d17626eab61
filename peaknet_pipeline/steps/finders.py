"""Every finder by name: its parameters, and how it is made for a detector.

The commands, the live stream and Python users find peaks through this list, so that they find the same ones. What only the
network needs is imported when one is loaded: torch takes longer to start than a classical finder to find.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.infer.stream import Finder
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.peaks.classical import CLASSICAL
from peaknet_pipeline.peaks.finder import ClassicalFinder
from peaknet_pipeline.steps.network_params import DetectionParams
from peaknet_pipeline.types import BoolArray, Geometry

if TYPE_CHECKING:
    from peaknet_pipeline.learn.checkpoint import LoadedModel

PEAKNET = "peaknet"
"""The name of the finder with a network."""


@dataclass(frozen=True)
class FinderKind:
    """A finder: what it is, what can be chosen, and how it is made.

    ``make`` takes parameters, geometry, bad pixels (n_panels, ss, fs), the network (None for a classical finder), and
    whether the peaks' pixels are wanted too.
    """

    name: str
    meaning: str
    parameters: type[Parameters]
    make: "Callable[[Any, Geometry, BoolArray, LoadedModel | None, bool], Finder]"

    @property
    def has_network(self) -> bool:
        """Whether a network finds the peaks."""
        return self.name == PEAKNET

    def load(self, model: Path | None) -> "LoadedModel | None":
        """Return the network of a model folder, the shipped one without; None for a classical finder.

        Raises
        ------
        ParameterError
            A model is given to a classical finder.

        """
        if self.has_network:
            from peaknet_pipeline.steps.find_with_network import load_model

            return load_model(model)
        if model is not None:
            raise ParameterError("a model goes with the finder peaknet only", found=self.name)
        return None


def _classical(finder: ClassicalFinder) -> FinderKind:
    def make(
        params: Any, geometry: Geometry, bad: BoolArray, model: "LoadedModel | None", with_pixels: bool
    ) -> Finder:
        return finder.make(params, geometry, bad)

    return FinderKind(finder.name, finder.meaning, finder.parameters, make)


def _make_network(
    params: DetectionParams,
    geometry: Geometry,
    bad: BoolArray,
    model: "LoadedModel | None",
    with_pixels: bool,
) -> Finder:
    from peaknet_pipeline.steps.find_with_network import engine_recipe, load_model

    network = model if model is not None else load_model(None)
    return engine_recipe(network, params, geometry=geometry, bad_pixels=bad, masks=with_pixels).make()


FINDERS: dict[str, FinderKind] = {name: _classical(finder) for name, finder in CLASSICAL.items()} | {
    PEAKNET: FinderKind(PEAKNET, "the network", DetectionParams, _make_network)
}
"""Every finder."""


def finder_kind(name: str) -> FinderKind:
    """Return a finder by name.

    Raises
    ------
    ParameterError
        There is none of that name.

    """
    if name not in FINDERS:
        raise ParameterError("unknown finder", expected=f"one of {', '.join(FINDERS)}", found=name)
    return FINDERS[name]
