"""Parameters of a whole run's second look: of the search, of the diffraction model to start from, and of the control."""

from dataclasses import dataclass

from peaknet_pipeline.indexing.second_look.diffraction_model import DiffractionModel
from peaknet_pipeline.indexing.second_look.weak_frame import SecondLookParams
from peaknet_pipeline.params import parameter


@dataclass(frozen=True)
class RunSecondLookParams(SecondLookParams, DiffractionModel):
    """How a run is looked at again; widths and fall-off hold until the run's own lattices tell them."""

    spot_sigma: float = parameter(
        0.0,
        meaning="standard deviation of the spots' shape; 0: what suits the run's own lattices best",
        unit="px",
        ge=0.0,
        le=4.0,
    )
    n_controls: int = parameter(
        600,
        meaning="scrambled copies of the run's frames that are searched too; 600 show a false rate of 0.5 %",
        ge=1,
        le=100_000,
    )
    more_lattices: bool = parameter(True, meaning="look for further lattices in frames that have one already")

    def parts(self) -> tuple[SecondLookParams, DiffractionModel]:
        """Return the parameters of the search and the diffraction model."""
        return SecondLookParams.part_of(self), DiffractionModel.part_of(self)
