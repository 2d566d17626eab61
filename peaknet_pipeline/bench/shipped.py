"""Benchmark of the shipped network: unseen simulated experiments against a tuned peakfinder8, and real stills."""

from pathlib import Path
from typing import Any

from peaknet_pipeline.bench.real_stills import measure_stills
from peaknet_pipeline.bench.unseen import BRIGHTNESS, add_up, compare_finders, simulate_unseen
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.steps.find_with_network import load_model

TEST_SEEDS, VALIDATION_SEEDS = 920_000_000, 905_000_000
"""First simulator seeds of the experiments that are reported, and of those on which choices are made."""

THRESHOLDS = (0.02, *(n / 20 for n in range(1, 20)))


def run(
    *,
    experiments: int = 14,
    frames: int = 24,
    hit_fraction: float = 0.75,
    brightness: tuple[float, float] = BRIGHTNESS,
    seeds: str = "test",
    thresholds: tuple[float, ...] = THRESHOLDS,
    model: str | None = None,
    realdata: str | None = None,
) -> dict[str, Any]:
    """Compare the network with peakfinder8, tuned by a scan of each very run and untuned, and with an oracle.

    Parameters
    ----------
    experiments, frames : int
        Simulated runs, each of a random experiment, and frames of each; 0 experiments: none.
    hit_fraction : float
        Share of the frames with a crystal.
    brightness : (float, float)
        Range of the crystals' brightness, as a multiple of each experiment's own.
    seeds : str
        ``test``, or ``validation`` for choices.
    thresholds : tuple of float
        Ascending; the first at which the network is as precise as the tuned peakfinder8 gives the recall at equal
        precision.
    model : str, optional
        A checkpoint's folder instead of the shipped one.
    realdata : str, optional
        Folder with real stills and CrystFEL's lists.

    Returns
    -------
    dict
        ``summary`` per finder (counts over all runs), ``runs``, ``real``.

    """
    starts = {"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}
    if seeds not in starts:
        raise ParameterError("no such seeds", expected=" or ".join(starts), found=seeds)
    loaded = load_model(Path(model) if model else None)
    runs = [
        compare_finders(
            simulate_unseen(
                starts[seeds] + number,
                frames,
                hit_fraction=hit_fraction,
                brightness=(brightness[0], brightness[1]),
            ),
            loaded,
            thresholds=tuple(thresholds),
        )
        for number in range(experiments)
    ]
    finders = ("oracle", "tuned", "default", "network", "at_equal_precision")
    return {
        "threshold": loaded.card.threshold,
        "summary": {finder: add_up(runs, finder) for finder in finders} if runs else {},
        "runs": runs,
        "real": measure_stills(Path(realdata), loaded) if realdata else "not measured: give realdata=FOLDER",
    }
