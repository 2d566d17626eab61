"""The detectors that can be simulated: panel layouts, pixels, and common settings.

Panel counts, sizes and pixel sizes are the published ones; gaps and the hole for the beam are typical, not
surveyed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from peaknet_pipeline.simulate.experiment import ResponseParameters

Placement = tuple[float, float, int]
"""Laboratory x and y (px) of a panel's centre, and its rotation in quarter turns."""


@dataclass(frozen=True)
class Detector:
    """A detector type: panel grid, pixels, answer, and the settings at which it is commonly used."""

    name: str
    n_ss: int
    n_fs: int
    pixel_size_m: float
    placements: Callable[[], list[Placement]]
    response: ResponseParameters
    distances_m: tuple[float, float]
    energies_ev: tuple[float, float]
    point_spread_px: tuple[float, float]
    adu_per_kev: float = 0.0
    masked_as: str = "measured"
    module: tuple[int, int, int, int] | None = None

    def adu_per_photon(self, photon_energy_ev: float) -> float:
        """Return the gain at this photon energy, adu per photon."""
        if self.adu_per_kev:
            return self.adu_per_kev * photon_energy_ev / 1000
        return self.response.adu_per_photon


def _single() -> list[Placement]:
    return [(0.0, 0.0, 0)]


def _pinwheel(offsets: list[tuple[float, float, int]]) -> list[Placement]:
    """Repeat one quadrant's panels four times, each turned by 90° about the beam."""
    placed: list[Placement] = []
    for quadrant in range(4):
        for x, y, turns in offsets:
            for _ in range(quadrant):
                x, y = -y, x
            placed.append((x, y, (turns + quadrant) % 4))
    return placed


def _demo() -> list[Placement]:
    # Quadrants of 256 x 356 leave a square hole of about 100 px around the beam.
    return _pinwheel([(50.0 + 128, -46.0 + 88 + i * 180, 0) for i in range(2)])


def _epix10k2m() -> list[Placement]:
    return _pinwheel([(34.0 + 192 + i * 392, -20.0 + 176 + j * 362, 0) for j in range(2) for i in range(2)])


def _jungfrau4m() -> list[Placement]:
    rows = [-822.0, -274.0, 274.0, 822.0]
    left = [(-516.0 - (34 if y < 0 else -34), y, 0) for y in rows]
    right = [(516.0 - (34 if y < 0 else -34), y, 0) for y in rows]
    return [*left, *right]


def _cspad() -> list[Placement]:
    pair = [(0.0, -94.5, 0), (0.0, 94.5, 0)]
    tiles = [(-200.0, -200.0, 0), (205.0, -200.0, 1), (205.0, 205.0, 0), (-200.0, 205.0, 1)]
    quadrant = []
    for x, y, turns in tiles:
        for dx, dy, turn in pair:
            offset = (dx, dy) if turns == 0 else (-dy, dx)
            quadrant.append((430.0 + x + offset[0], 390.0 + y + offset[1], turn + turns))
    return _pinwheel(quadrant)


def _agipd1m() -> list[Placement]:
    return _pinwheel([(14.0 + 256, -10.0 + 64 + i * 144, 1) for i in range(4)])


def _integrating(**changes: object) -> ResponseParameters:
    return ResponseParameters.from_mapping(changes)


def _counting(dtype: str, saturation: float) -> ResponseParameters:
    return ResponseParameters(
        dtype=dtype,
        adu_per_photon=1.0,
        read_noise_photons=0.0,
        common_mode_photons=0.0,
        charge_sharing=0.0,
        gain_spread=0.0,
        saturation_photons=saturation,
    )


DETECTORS = {
    d.name: d
    for d in (
        Detector(
            "demo",
            176,
            256,
            150e-6,
            _demo,
            _integrating(chip_ss=88, chip_fs=128, saturation_photons=1500.0),
            (0.09, 0.11),
            (9000.0, 10000.0),
            (0.3, 0.9),
        ),
        Detector(
            "epix10k2m",
            352,
            384,
            100e-6,
            _epix10k2m,
            _integrating(
                dtype="float32", chip_ss=176, chip_fs=192, read_noise_photons=0.12, saturation_photons=10000.0
            ),
            (0.08, 0.15),
            (7000.0, 12000.0),
            (0.3, 1.0),
            adu_per_kev=1.0,
        ),
        Detector(
            "jungfrau4m",
            512,
            1024,
            75e-6,
            _jungfrau4m,
            _integrating(
                dtype="float32", chip_ss=256, chip_fs=256, read_noise_photons=0.05, saturation_photons=10000.0
            ),
            (0.09, 0.20),
            (8000.0, 13000.0),
            (0.4, 1.3),
            adu_per_kev=1.0,
            masked_as="nan",
        ),
        Detector(
            "cspad",
            185,
            388,
            110e-6,
            _cspad,
            _integrating(
                chip_ss=185,
                chip_fs=194,
                read_noise_photons=0.25,
                common_mode_photons=0.1,
                adu_per_photon=30.0,
                gain_spread=0.04,
                saturation_photons=350.0,
            ),
            (0.09, 0.16),
            (7000.0, 10500.0),
            (0.3, 0.9),
        ),
        Detector(
            "agipd1m",
            512,
            128,
            200e-6,
            _agipd1m,
            _integrating(
                dtype="float32",
                chip_ss=64,
                chip_fs=64,
                read_noise_photons=0.12,
                common_mode_photons=0.05,
                saturation_photons=8000.0,
            ),
            (0.11, 0.20),
            (7000.0, 10000.0),
            (0.3, 0.9),
            adu_per_kev=1.0,
        ),
        Detector(
            "rayonix",
            1920,
            1920,
            177e-6,
            _single,
            _integrating(
                dtype="uint16",
                adu_per_photon=1.5,
                read_noise_photons=1.2,
                common_mode_photons=0.0,
                charge_sharing=0.0,
                blur_px=0.6,
                gain_spread=0.03,
                saturation_photons=40000.0,
                offset_adu=10.0,
            ),
            (0.12, 0.25),
            (8000.0, 13000.0),
            (0.4, 1.1),
        ),
        Detector(
            "eiger4m",
            2162,
            2068,
            75e-6,
            _single,
            _counting("uint16", 60000.0),
            (0.10, 0.20),
            (9000.0, 14000.0),
            (0.5, 1.3),
            masked_as="maximum",
            module=(512, 1028, 38, 12),
        ),
        Detector(
            "eiger16m",
            4362,
            4148,
            75e-6,
            _single,
            _counting("uint32", 1e6),
            (0.15, 0.30),
            (9000.0, 14000.0),
            (0.5, 1.3),
            masked_as="maximum",
            module=(512, 1028, 38, 12),
        ),
        Detector(
            "pilatus6m",
            2527,
            2463,
            172e-6,
            _single,
            _counting("int32", 1e6),
            (0.20, 0.45),
            (11000.0, 14000.0),
            (0.5, 1.3),
            masked_as="minus_one",
            module=(195, 487, 17, 7),
        ),
    )
}
"""Every detector by name."""
