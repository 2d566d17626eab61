"""Detectors by name, placed on the beam."""

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.simulate.catalogue import DETECTORS, Detector, Placement
from peaknet_pipeline.types import BadRegion, Geometry, Panel

DATA_PATH = "/entry_1/data_1/data"
MASK_PATH = "/entry_1/data_1/mask"
CODES_PATH = "/entry_1/data_1/gain"
PEDESTAL_PATH = "/calibration/pedestal"
GAIN_PATH = "/calibration/gain"
ENERGY_PATH = "/LCLS/photon_energy_eV"
ENCODER_PATH = "/LCLS/detector_1/EncoderValue"


def make_detector(name: str, distance_m: float, photon_energy_ev: float) -> Geometry:
    """Return the geometry of a named detector, perpendicular to the beam and centred on it.

    Raises
    ------
    ParameterError
        The name is not in :data:`DETECTORS`, or distance or energy is not positive.

    """
    detector = find_detector(name)
    if distance_m <= 0 or photon_energy_ev <= 0:
        raise ParameterError(
            "impossible detector setting", where=name, expected="positive distance and energy",
            found=f"{distance_m} m, {photon_energy_ev} eV",
        )  # fmt: skip
    gain = detector.adu_per_photon(photon_energy_ev)
    panels = tuple(
        _place(detector, i, placement, distance_m, gain) for i, placement in enumerate(detector.placements())
    )
    return Geometry(
        panels=panels,
        bad_regions=_module_gaps(detector),
        photon_energy_ev=photon_energy_ev,
        photon_energy_path=ENERGY_PATH,
        data_path=DATA_PATH,
        mask_path=MASK_PATH,
        mask_good_bits=0,
        mask_bad_bits=0xFF,
    )


def find_detector(name: str) -> Detector:
    """Return the detector type of that name.

    Raises
    ------
    ParameterError
        No detector has that name.

    """
    if name not in DETECTORS:
        raise ParameterError(
            "unknown detector", where="make_detector", expected=f"one of {', '.join(DETECTORS)}", found=name
        )
    return DETECTORS[name]


def _place(detector: Detector, number: int, placement: Placement, distance_m: float, gain: float) -> Panel:
    x, y, turns = placement
    fs = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[turns % 4]
    ss = (-fs[1], fs[0])
    half_fs, half_ss = detector.n_fs / 2, detector.n_ss / 2
    return Panel(
        name=f"p{number}",
        min_fs=0,
        max_fs=detector.n_fs - 1,
        min_ss=number * detector.n_ss,
        max_ss=(number + 1) * detector.n_ss - 1,
        corner_x=x - half_fs * fs[0] - half_ss * ss[0],
        corner_y=y - half_fs * fs[1] - half_ss * ss[1],
        fs_vec=(fs[0], fs[1], 0.0),
        ss_vec=(ss[0], ss[1], 0.0),
        pixel_size_m=detector.pixel_size_m,
        clen_m=distance_m,
        adu_per_photon=gain,
    )


def _module_gaps(detector: Detector) -> tuple[BadRegion, ...]:
    if detector.module is None:
        return ()
    module_ss, module_fs, gap_ss, gap_fs = detector.module
    rows = range(module_ss, detector.n_ss - 1, module_ss + gap_ss)
    columns = range(module_fs, detector.n_fs - 1, module_fs + gap_fs)
    horizontal = [
        BadRegion(f"bad_gap_ss{i}", "p0", True, 0, detector.n_fs - 1, row, row + gap_ss - 1)
        for i, row in enumerate(rows)
    ]
    vertical = [
        BadRegion(f"bad_gap_fs{i}", "p0", True, column, column + gap_fs - 1, 0, detector.n_ss - 1)
        for i, column in enumerate(columns)
    ]
    return (*horizontal, *vertical)
