"""How panels and detectors are moved, and how one geometry's detector moved against another's."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from peaknet_pipeline.geometry.maps import panel_shape
from peaknet_pipeline.types import Float64Array, Geometry, Panel


def turn_matrix(turn_rad: Float64Array) -> Float64Array:
    """Return the matrix, (3, 3), of a rotation vector, (3,), rad."""
    return np.asarray(Rotation.from_rotvec(turn_rad).as_matrix(), dtype=np.float64)


def move_panel(panel: Panel, shift_m: Float64Array, turn: Float64Array, centre_m: Float64Array) -> Panel:
    """Return the panel turned by a matrix (3, 3) about ``centre_m``, then shifted; the camera length follows z."""
    size = panel.pixel_size_m
    corner = np.array([panel.corner_x * size, panel.corner_y * size, panel.clen_m])
    moved = turn @ (corner - centre_m) + centre_m + shift_m
    fs, ss = (tuple(float(v) for v in turn @ np.array(vec)) for vec in (panel.fs_vec, panel.ss_vec))
    return replace(
        panel,
        corner_x=float(moved[0] / size),
        corner_y=float(moved[1] / size),
        fs_vec=(fs[0], fs[1], fs[2]),
        ss_vec=(ss[0], ss[1], ss[2]),
        clen_m=float(moved[2]),
        coffset_m=panel.coffset_m + float(moved[2] - corner[2]),
    )


def move_detector(geometry: Geometry, shift_m: Float64Array, turn_rad: Float64Array) -> Geometry:
    """Return the geometry turned about the point where the beam meets it, by a rotation vector (3,), then shifted (3,)."""
    pivot, turn = beam_point_m(geometry), turn_matrix(turn_rad)
    panels = tuple(move_panel(panel, shift_m, turn, pivot) for panel in geometry.panels)
    return replace(geometry, panels=panels, text="")


def beam_point_m(geometry: Geometry) -> Float64Array:
    """Return the point where the beam meets the detector, (3,), metres from the sample."""
    return np.array([0.0, 0.0, float(np.mean([panel.clen_m for panel in geometry.panels]))])


def panel_turns(old: Geometry, new: Geometry) -> Float64Array:
    """Return by how much each panel turned about z, (n_panels,), rad."""
    first, second = (np.array([complex(p.fs_vec[0], p.fs_vec[1]) for p in g.panels]) for g in (old, new))
    return np.asarray(np.angle(second * np.conj(first)), dtype=np.float64)


def without_common_turn(old: Geometry, new: Geometry) -> Geometry:
    """Turn all panels back about the beam by their mean turn, which the spots can't fix."""
    back = turn_matrix(np.array([0.0, 0.0, -float(panel_turns(old, new).mean())]))
    return replace(new, panels=tuple(move_panel(p, np.zeros(3), back, beam_point_m(new)) for p in new.panels))


def detector_motion(old: Geometry, new: Geometry) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return how the detector moved as one piece, and what each panel moved beyond that.

    The shift t and rotation vector ω that fit the panels' corners best: p′ - p = t + ω × (p - c), c where the beam meets
    the old detector.

    Returns
    -------
    shift_m : (3,), metres
    turn_rad : (3,), rad
    beyond_m : (n_panels, 3), metres
        Of each panel's centre.

    """
    first, second = (np.concatenate([_corners_m(panel) for panel in g.panels]) for g in (old, new))
    arm = first - beam_point_m(old)
    x, y, z = arm.T
    zero = np.zeros_like(x)
    turned = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], axis=1).reshape(-1, 3, 3)
    matrix = np.concatenate([np.tile(np.eye(3), (len(arm), 1, 1)), turned], axis=2)
    moved = second - first
    scale = np.array([1.0, 1.0, 1.0, *[max(float(np.abs(arm).max()), 1e-9)] * 3])
    solved = np.linalg.lstsq((matrix / scale).reshape(-1, 6), moved.ravel(), rcond=1e-9)[0] / scale
    beyond = (moved - matrix @ solved).reshape(len(old.panels), 4, 3).mean(axis=1)
    return solved[:3], solved[3:], beyond


def _corners_m(panel: Panel) -> Float64Array:
    """Return a panel's four corners, (4, 3), metres from the sample."""
    ss, fs = panel_shape(panel)
    corner = np.array([panel.corner_x, panel.corner_y, panel.clen_m / panel.pixel_size_m])
    ways = np.array([(0, 0), (fs, 0), (0, ss), (fs, ss)], dtype=np.float64)
    steps = ways @ np.array([panel.fs_vec, panel.ss_vec])
    return np.asarray(panel.pixel_size_m * (corner + steps), dtype=np.float64)
