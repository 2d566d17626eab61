"""What a simulated experiment is: sample, beam, crystals, background, detector and shots."""

from dataclasses import dataclass

from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.simulate.gain_stages import GainStageParameters
from peaknet_pipeline.types import HC_EV_ANGSTROM, Geometry, UnitCell

DTYPES = ("int16", "uint16", "int32", "uint32", "float32")
"""Data types that a simulated detector writes."""


@dataclass(frozen=True)
class Sample:
    """A protein crystal form: its name, cell and space group (Hermann-Mauguin, as gemmi reads it)."""

    name: str
    cell: UnitCell
    space_group: str


@dataclass(frozen=True)
class BeamParameters(Parameters):
    """The X-ray pulses."""

    photon_energy_ev: float = parameter(9500.0, meaning="mean photon energy", unit="eV", gt=0)
    bandwidth: float = parameter(0.001, meaning="relative spectral width of one pulse, rms", ge=0, le=0.1)
    energy_jitter: float = parameter(0.0008, meaning="relative shot-to-shot energy jitter, rms", ge=0, le=0.1)
    divergence_rad: float = parameter(1e-4, meaning="divergence of the beam, rms", unit="rad", ge=0, le=0.1)
    pulse_jitter: float = parameter(
        0.25, meaning="relative shot-to-shot pulse-energy jitter, rms", ge=0, le=2
    )
    polarisation: float = parameter(1.0, meaning="fraction polarised along laboratory x", ge=0, le=1)

    @property
    def wavelength_angstrom(self) -> float:
        """Mean wavelength, Å."""
        return HC_EV_ANGSTROM / self.photon_energy_ev


@dataclass(frozen=True)
class CrystalParameters(Parameters):
    """How the crystals scatter."""

    spot_photons: float = parameter(
        400.0, meaning="mean photons of a 4 Å reflection exactly on the Ewald sphere", unit="photons", ge=0
    )
    b_factor: float = parameter(20.0, meaning="isotropic B factor", unit="Å²", ge=0, le=500)
    brightness_spread: float = parameter(
        0.5, meaning="crystal-to-crystal spread of ln(brightness), rms", ge=0, le=3
    )
    width_spread: float = parameter(0.08, meaning="spot-to-spot spread of ln(width), rms", ge=0, le=1)
    mosaicity_rad: float = parameter(
        1e-3, meaning="orientation spread within a crystal, rms", unit="rad", ge=0, le=0.1
    )
    size_angstrom: float = parameter(10000.0, meaning="edge of a crystal", unit="Å", gt=0)
    resolution_limit_angstrom: float = parameter(
        1.8, meaning="finest spacing that scatters", unit="Å", gt=0.5
    )
    spot_sigma_px: float = parameter(
        0.8, meaning="spot width of a perfect crystal, point spread included, rms", ge=0.2
    )


@dataclass(frozen=True)
class BackgroundParameters(Parameters):
    """What reaches a pixel without being a reflection, in photons per pixel at the beam centre."""

    flat_photons: float = parameter(0.05, meaning="fluorescence, the same everywhere", unit="photons", ge=0)
    air_photons: float = parameter(
        3.0, meaning="air and beamline scatter towards zero angle", unit="photons", ge=0
    )
    air_decay: float = parameter(0.08, meaning="1/d at which air scatter has fallen to 1/e", unit="Å⁻¹", gt=0)
    water_photons: float = parameter(2.0, meaning="height of the water ring (3.2 Å)", unit="photons", ge=0)
    diffuse_photons: float = parameter(
        0.3, meaning="height of the protein's and solvent's diffuse hump (4.5 Å)", unit="photons", ge=0
    )
    lcp_photons: float = parameter(
        0.0, meaning="height of the lipidic-cubic-phase ring (4.5 Å)", unit="photons", ge=0
    )
    ice_photons: float = parameter(0.0, meaning="height of the strongest ice ring", unit="photons", ge=0)
    ring_photons: float = parameter(0.0, meaning="height of one more ring", unit="photons", ge=0)
    ring_d_angstrom: float = parameter(3.7, meaning="spacing of that ring", unit="Å", gt=0)
    ring_width: float = parameter(0.01, meaning="its width, rms", unit="Å⁻¹", gt=0)
    streak_photons: float = parameter(0.0, meaning="jet streak, at 50 px from the beam", unit="photons", ge=0)
    streak_angle_deg: float = parameter(0.0, meaning="direction of the streak, from laboratory x", unit="°")
    streak_width_px: float = parameter(3.0, meaning="width of the streak, rms", unit="px", gt=0)
    shadow_radius_px: float = parameter(0.0, meaning="radius of the beamstop's shadow", unit="px", ge=0)
    shadow_arm_px: float = parameter(
        0.0, meaning="half width of the beamstop's arm; 0 = none", unit="px", ge=0
    )
    shadow_arm_deg: float = parameter(90.0, meaning="direction of the arm, from laboratory x", unit="°")


@dataclass(frozen=True)
class ResponseParameters(Parameters):
    """How the detector turns photons into numbers."""

    dtype: str = parameter("int16", meaning="data type of the frames", choices=DTYPES)
    adu_per_photon: float = parameter(20.0, meaning="gain", unit="adu/photon", gt=0)
    read_noise_photons: float = parameter(0.1, meaning="read noise, rms", unit="photons", ge=0)
    common_mode_photons: float = parameter(
        0.03, meaning="common mode per chip and shot, rms", unit="photons", ge=0
    )
    chip_ss: int = parameter(0, meaning="chip height for the common mode; 0 = the panel", unit="px", ge=0)
    chip_fs: int = parameter(0, meaning="chip width for the common mode; 0 = the panel", unit="px", ge=0)
    blur_px: float = parameter(
        0.0, meaning="spread of the recorded light, noise included (CCD), rms", unit="px", ge=0, le=5
    )
    charge_sharing: float = parameter(
        0.2, meaning="fraction of photons that share charge with a neighbour", ge=0, le=1
    )
    gain_spread: float = parameter(0.02, meaning="pixel-to-pixel gain spread, rms", ge=0, le=0.5)
    saturation_photons: float = parameter(1000.0, meaning="full well", unit="photons", gt=0)
    offset_adu: float = parameter(0.0, meaning="pedestal left in the data", unit="adu")


@dataclass(frozen=True)
class DefectParameters(Parameters):
    """Pixels that lie."""

    hot_fraction: float = parameter(2e-4, meaning="pixels with a constant high value", ge=0, le=0.1)
    hot_photons: float = parameter(60.0, meaning="median excess of a hot pixel", unit="photons", ge=0)
    dead_fraction: float = parameter(3e-4, meaning="pixels that do not respond", ge=0, le=0.1)
    noisy_fraction: float = parameter(1e-4, meaning="pixels with ten photons of read noise", ge=0, le=0.1)
    known_fraction: float = parameter(
        0.7, meaning="share of the bad pixels that the file's mask knows", ge=0, le=1
    )
    masked_as: str = parameter(
        "measured",
        meaning="what is written in known bad pixels",
        choices=("measured", "zero", "nan", "minus_one", "maximum"),
    )


@dataclass(frozen=True)
class ShotParameters(Parameters):
    """What varies from shot to shot."""

    hit_fraction: float = parameter(0.3, meaning="shots that meet a crystal", ge=0, le=1)
    multi_probability: float = parameter(0.1, meaning="hits with more than one crystal", ge=0, le=1)
    background_spread: float = parameter(0.25, meaning="spread of ln(jet thickness), rms", ge=0, le=3)
    miss_probability: float = parameter(0.05, meaning="shots in which the jet is almost missed", ge=0, le=1)


@dataclass(frozen=True)
class RunConditions(Parameters):
    """What one run changes about its experiment."""

    hit_fraction: float | None = parameter(
        None, meaning="shots that meet a crystal; none = the experiment's", ge=0, le=1
    )
    background_factor: float = parameter(
        1.0, meaning="factor on the background, the jet streak excepted", ge=0
    )
    brightness_factor: float = parameter(1.0, meaning="factor on all reflections", ge=0)
    spot_width_factor: float = parameter(
        1.0, meaning="factor on the spots' width, as of larger or worse crystals", ge=0.2
    )
    streak_factor: float = parameter(1.0, meaning="factor on the jet streak", ge=0)
    ring_photons: float = parameter(0.0, meaning="height of an additional ring", unit="photons", ge=0)
    ring_d_angstrom: float = parameter(3.7, meaning="spacing of the additional ring", unit="Å", gt=0)
    forced_stage: int | None = parameter(
        None, meaning="gain stage held by all pixels of a raw run; none = they switch", ge=0
    )


@dataclass(frozen=True)
class Experiment:
    """A complete simulated experiment; ``seed`` fixes its structure factors, pixel gains and bad pixels.

    With ``stages`` the frames are raw: uint16 values and gain codes instead of calibrated numbers.
    """

    name: str
    seed: int
    sample: Sample
    geometry: Geometry
    beam: BeamParameters
    crystal: CrystalParameters
    background: BackgroundParameters
    response: ResponseParameters
    defects: DefectParameters
    shots: ShotParameters
    stages: GainStageParameters | None = None
