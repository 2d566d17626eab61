"""A small world with known truth: Poisson background, Gaussian spots, bad pixels."""

from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.learn.crops import Crop, ValidationPanel


def draw_panel(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int] = (96, 96),
    n_spots: int = 12,
    background: float = 8.0,
    gain: float = 1.0,
    snr_range: tuple[float, float] = (5.0, 40.0),
) -> ValidationPanel:
    """Draw one panel; a spot's SNR is its photons over the Poisson noise of the background beneath it."""
    ss, fs = np.mgrid[: shape[0], : shape[1]].astype(float)
    slope = 1 + 0.6 * (ss / shape[0] - 0.5) - 0.6 * (fs / shape[1] - 0.5)
    expected = background * slope
    label = np.zeros(shape, dtype=np.uint8)
    centres = rng.uniform(3, np.array(shape) - 4, size=(n_spots, 2))
    snr = np.exp(rng.uniform(*np.log(snr_range), size=n_spots))
    for (cy, cx), strength in zip(centres, snr, strict=True):
        sigma = rng.uniform(0.7, 1.4)
        profile = np.exp(-((ss - cy) ** 2 + (fs - cx) ** 2) / (2 * sigma**2))
        local = background * slope[int(cy), int(cx)]
        expected += strength * np.sqrt(local * 4 * np.pi * sigma**2) * profile / profile.sum()
        label[profile >= 0.5] = 1
    image = rng.poisson(expected) * gain
    good = np.ones(shape, dtype=bool)
    good[:, shape[1] // 2] = False
    image[~good] = 1e6
    label[~good] = 255
    inside = good[tuple(np.rint(centres).astype(int).T)]
    return ValidationPanel(
        image.astype(np.float32),
        good,
        label,
        centres[inside].astype(np.float32),
        snr[inside].astype(np.float32),
    )


@dataclass(frozen=True)
class ToyCrops:
    """Crops drawn anew from (seed, index)."""

    n_crops: int
    seed: int = 0
    shape: tuple[int, int] = (64, 64)
    n_spots: int = 6

    def __len__(self) -> int:
        return self.n_crops

    def __getitem__(self, index: int) -> Crop:
        rng = np.random.default_rng((self.seed, index))
        panel = draw_panel(
            rng,
            shape=self.shape,
            n_spots=self.n_spots,
            background=float(rng.uniform(2, 30)),
            gain=float(rng.uniform(0.1, 50)),
        )
        return Crop(panel.image, panel.good, panel.label)


def draw_panels(n_panels: int, *, seed: int, **options: object) -> list[ValidationPanel]:
    """Draw validation panels."""
    rng = np.random.default_rng(seed)
    return [draw_panel(rng, **options) for _ in range(n_panels)]  # type: ignore[arg-type]
