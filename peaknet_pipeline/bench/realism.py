"""Simulated frames beside real ones, by one command."""

from pathlib import Path
from typing import Any

from peaknet_pipeline.bench.realism_plot import compare
from peaknet_pipeline.errors import ParameterError


def run(realdata: str = "", plot: str = "realism.png", n_draws: int = 32, seed: int = 100) -> dict[str, Any]:
    """Measure real, independently simulated, twin and random frames alike, and draw them into ``plot``.

    Parameters
    ----------
    realdata : str
        Folder of the real frames that ``realism_sources`` names.
    plot : str
        PNG file to write.
    n_draws, seed : int
        Random experiments beside them.

    Raises
    ------
    ParameterError
        ``realdata`` is no folder.

    """
    folder = Path(realdata)
    if not realdata or not folder.is_dir():
        raise ParameterError(
            "no folder of real frames",
            where="bench realism",
            found=realdata or None,
            remedy="--set realdata=FOLDER",
        )
    return compare(folder, Path(plot), n_draws=n_draws, seed=seed)
