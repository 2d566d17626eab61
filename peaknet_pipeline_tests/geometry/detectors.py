"""Detectors for tests, and a hypothesis strategy that draws them."""

import numpy as np
from hypothesis import strategies as st

from peaknet_pipeline.types import Geometry, Panel


def flat_panel(**changes: object) -> Panel:
    """Return a 60×40 (fs×ss) panel of 100 µm pixels at 0.1 m, its corner at (-30, -20)."""
    values: dict[str, object] = {
        "name": "p0",
        "min_fs": 0,
        "max_fs": 59,
        "min_ss": 0,
        "max_ss": 39,
        "corner_x": -30.0,
        "corner_y": -20.0,
        "fs_vec": (1.0, 0.0, 0.0),
        "ss_vec": (0.0, 1.0, 0.0),
        "pixel_size_m": 1e-4,
        "clen_m": 0.1,
    }
    return Panel(**(values | changes))  # type: ignore[arg-type]


def _vectors(
    turn: float, tilt: float, mirrored: bool
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    c, s = float(np.cos(turn)), float(np.sin(turn))
    sign = -1.0 if mirrored else 1.0
    return (c, s, tilt), (-s * sign, c * sign, -0.5 * tilt)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Draw 1 to 5 panels, 60 px apart in x, turned, tilted, mirrored, of unequal size, stacked in ss."""
    panels, start, clen_m = [], 0, draw(st.floats(0.05, 0.5))
    for number in range(draw(st.integers(1, 5))):
        height, width = draw(st.integers(3, 30)), draw(st.integers(3, 30))
        fs_vec, ss_vec = _vectors(
            draw(st.floats(-3.1, 3.1)), draw(st.floats(-0.05, 0.05)), draw(st.booleans())
        )
        coffset_m = draw(st.floats(-0.01, 0.01))
        panels.append(
            flat_panel(
                name=f"p{number}",
                min_ss=start,
                max_ss=start + height - 1,
                max_fs=width - 1,
                corner_x=90.0 * number + draw(st.floats(-2, 2)) + 0.1,
                corner_y=draw(st.floats(-30, 30)),
                fs_vec=fs_vec,
                ss_vec=ss_vec,
                clen_m=clen_m + coffset_m,
                coffset_m=coffset_m,
            )
        )
        start += height
    return Geometry(panels=tuple(panels), photon_energy_ev=9500.0, data_path="/entry_1/data_1/data")
