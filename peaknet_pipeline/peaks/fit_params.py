"""How reflections are fitted, which fits are accepted, and what can be wrong with one."""

from dataclasses import dataclass
from enum import IntFlag

from peaknet_pipeline.devices import DeviceParams
from peaknet_pipeline.params import Parameters, declared, parameter


class FitFlag(IntFlag):
    """What went wrong in a fit; 0 = accepted."""

    NOT_CONVERGED = 1
    """The iterations ran out."""
    TOO_FEW_PIXELS = 2
    """Less than ``min_pixels`` good pixels; nothing was fitted."""
    NEGATIVE = 4
    """The spot is a hole."""
    INSIGNIFICANT = 8
    """The significance is below ``min_significance``: the patch may well be background."""
    CENTRE_FAR = 16
    """The centre ran into its bound, ``max_shift`` from where it was expected."""
    WIDTH_AT_BOUND = 32
    """The profile is as wide as allowed, or as narrow as allowed in both directions (a single pixel)."""
    CHI2 = 64
    """The reduced χ² exceeds ``max_chi2`` and the misfit ``max_misfit`` of the spot."""
    MASKED_CENTRE = 128
    """The pixel under the fitted centre is bad or off the panel."""


@dataclass(frozen=True)
class FitParams(Parameters):
    """How reflections are fitted and which fits are accepted."""

    half_size: int = parameter(4, meaning="pixels from a patch's middle to its edge", unit="px", ge=2, le=15)
    max_shift: float = parameter(2.5, meaning="largest shift from the expected position", unit="px", gt=0)
    min_width: float = parameter(0.4, meaning="least σ and γ", unit="px", gt=0)
    max_width: float = parameter(4.0, meaning="largest σ and γ", unit="px", gt=0)
    min_pixels: int = parameter(30, meaning="least good pixels in a patch", unit="px", ge=12)
    min_significance: float = parameter(4.5, meaning="least amplitude over its error at fixed shape", ge=0)
    max_chi2: float = parameter(2.0, meaning="largest reduced χ² of an accepted fit", gt=0)
    max_misfit: float = parameter(
        0.3, meaning="misfit that is forgiven beyond max_chi2, as a share of the spot", ge=0, le=1
    )
    tied_widths: bool = parameter(
        True, meaning="Gaussian and Lorentzian share one half width per axis, γ = σ √(2 ln 2)"
    )
    free_gain: float = parameter(
        4.0,
        meaning="with free widths: decrease of χ², over the reduced χ², for which γ leaves σ (Akaike: 4); "
        "0: for any",
        ge=0,
    )
    max_iterations: int = parameter(300, meaning="most trial steps of a fit", ge=1)
    tolerance: float = parameter(1e-8, meaning="relative decrease of χ² that counts as none", gt=0)
    device: str = declared(DeviceParams, "device", default="cpu")
