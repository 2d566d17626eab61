"""How reflections are scaled, weighted, rejected and merged."""

from dataclasses import dataclass

from peaknet_pipeline.merging.symmetry import HOLOHEDRIES, Symmetry, find_symmetry
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.types import UnitCell


@dataclass(frozen=True)
class MergeParams(Parameters):
    """How integrated reflections become one data set."""

    friedel: bool = parameter(True, meaning="Friedel mates are one reflection")
    max_inv_d_merged: float = parameter(
        0.0,
        meaning="resolution limit 1/d of the merged set; 0: all that was integrated",
        unit="Å⁻¹",
        ge=0.0,
        le=2.0,
    )
    n_cycles: int = parameter(8, meaning="rounds of scaling against the merged set", ge=1, le=100)
    scale_b: bool = parameter(True, meaning="each crystal has a B factor of its own beside its scale")
    b_spread: float = parameter(
        10.0, meaning="expected spread of the crystals' B factors, rms", unit="Å²", gt=0.0
    )
    outlier_sigma: float = parameter(
        6.0, meaning="observations further from their expectation are left out", unit="σ", gt=1.0
    )
    min_crystal_reflections: int = parameter(
        15, meaning="least reflections of a crystal that is merged", ge=3
    )
    min_crystal_cc: float = parameter(
        0.2,
        meaning="least correlation, plus its standard error, of a crystal with what the others lead to expect",
        ge=-1.0,
        le=1.0,
    )
    max_scale_ratio: float = parameter(
        30.0, meaning="largest factor between a crystal's scale and the median", gt=1.0
    )
    min_information: float = parameter(
        0.3,
        meaning="least (mean intensity at that resolution / σ)² of a merged reflection; weaker ones count as not measured",
        ge=0.0,
    )
    resolve_settings: bool = parameter(
        True,
        meaning="settings that the lattice cannot tell apart are resolved by correlation between crystals",
    )
    n_shells: int = parameter(10, meaning="resolution shells of the figures", ge=1, le=100)


@dataclass(frozen=True)
class RunMergeParams(MergeParams):
    """How an experiment's runs are merged."""

    symmetry: str = parameter(
        "", meaning="space group, as P43212, or point group, as 422 or 4/mmm; empty: the lattice's highest"
    )
    merged_finder: str = parameter(
        "classical", meaning="whose lattices are merged", choices=("classical", "peaknet")
    )

    def symmetry_of(self, cell: UnitCell) -> Symmetry:
        """Return the symmetry of the experiment's crystals."""
        return find_symmetry(self.symmetry or HOLOHEDRIES[cell.lattice_type], cell, friedel=self.friedel)
