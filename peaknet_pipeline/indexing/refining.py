"""From coarse orientations to refined lattices: all candidates at fixed cell, then each frame's finalists with the cell."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch

from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.polish import polish_lattices
from peaknet_pipeline.indexing.qvectors import SpotBatch
from peaknet_pipeline.indexing.refine import Spots, log_odds, refine_lattice, refine_rotation
from peaknet_pipeline.indexing.refine_compiled import refine_lattices, refine_rotations
from peaknet_pipeline.indexing.target import Target
from peaknet_pipeline.types import BoolArray, Float64Array, IntArray

N_FINALISTS = 4
"""Candidates per frame whose cell is refined and that the gate judges."""

N_ROTATION_STEPS, N_LATTICE_STEPS = 8, 10


def refine_on_device(
    part: SpotBatch,
    used: BoolArray,
    frame: IntArray,
    rotation: Float64Array,
    target: Target,
    params: IndexParams,
    device: torch.device,
) -> tuple[Float64Array, IntArray]:
    """Refine in torch: reciprocal bases of the finalists, (n, 3, 3), Å⁻¹, primitive, and their frames' positions (n,)."""

    def put(array: Float64Array) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float64, device=device)

    beam = None if part.beam is None else put(part.beam)
    spots = Spots(put(part.q), torch.as_tensor(used, device=device), beam)
    basis = put(target.primitive)
    start, end = _tolerances(params)
    n = _n_coarse(part, params)
    all_spots = spots.take(torch.as_tensor(frame, device=device))
    many = Spots(all_spots.q[:, :n], all_spots.used[:, :n], all_spots.beam)
    turned, tolerance = refine_rotation(
        many, put(rotation), basis, start=start, end=end, spacing=target.spacing, n_steps=N_ROTATION_STEPS
    )
    score = log_odds(many, turned @ basis, tolerance, target.volume).cpu().numpy()
    keep = _finalists(frame, score)
    chosen = torch.as_tensor(keep, device=device)
    lattices = refine_lattice(
        all_spots.take(chosen),
        turned[chosen],
        basis,
        put(target.strains),
        tolerance=params.spot_tolerance,
        cell_sigma=params.cell_sigma,
        cell_tolerance=params.cell_tolerance,
        n_steps=N_LATTICE_STEPS,
    )
    return lattices.axes.cpu().numpy(), frame[keep]


def refine_on_processor(
    part: SpotBatch,
    used: BoolArray,
    frame: IntArray,
    rotation: Float64Array,
    target: Target,
    params: IndexParams,
    device: torch.device,
) -> tuple[Float64Array, IntArray]:
    """Refine in compiled loops; the same as :func:`refine_on_device`."""
    start, end = _tolerances(params)
    n = _n_coarse(part, params)
    q, free = np.ascontiguousarray(part.q[:, :n]), np.ascontiguousarray(used[:, :n])
    limit, rays = 0.45 * target.spacing, _rays(part)
    turned, score = _in_threads(
        lambda some: refine_rotations(
            q,
            free,
            frame[some],
            np.ascontiguousarray(rotation[some]),
            target.primitive,
            start,
            end,
            limit,
            N_ROTATION_STEPS,
            target.volume,
        ),
        frame.size,
    )
    keep = _finalists(frame, score)
    _, _, axes = _in_threads(
        lambda some: refine_lattices(
            part.q,
            used,
            rays,
            frame[keep][some],
            turned[keep][some],
            target.primitive,
            target.strains,
            params.spot_tolerance,
            params.cell_sigma,
            params.cell_tolerance,
            N_LATTICE_STEPS,
        ),
        keep.size,
    )
    return axes, frame[keep]


def polish(
    part: SpotBatch,
    used: BoolArray,
    axes: Float64Array,
    target: Target,
    params: IndexParams,
    device: torch.device,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Refine accepted lattices, one per frame of the batch, for the last time.

    Returns
    -------
    axes : (n, 3, 3) Å⁻¹, primitive
    shift : (n, 2) rad
    q : (n, m, 3) Å⁻¹
        The spots after the shift.

    """

    def put(array: Float64Array) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float64, device=device)

    done = polish_lattices(
        put(part.q),
        torch.as_tensor(used, device=device),
        None if part.beam is None else put(part.beam),
        put(axes),
        put(target.primitive),
        put(target.strains),
        tolerance=params.spot_tolerance,
        cell_sigma=params.cell_sigma,
        beam_sigma=params.beam_sigma,
    )
    return done.axes.cpu().numpy(), done.shift.cpu().numpy(), done.q.cpu().numpy()


def _in_threads(loop: Callable[[slice], tuple[Any, ...]], n: int) -> tuple[Float64Array, ...]:
    """Run a compiled loop over n candidates in as many threads as numba would use; join its arrays in order."""
    n_parts = max(1, min(numba.get_num_threads(), n // 8))
    edges = np.linspace(0, n, n_parts + 1).astype(np.int64)
    parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    if n_parts == 1:
        return loop(parts[0])
    with ThreadPoolExecutor(n_parts) as pool:
        done = list(pool.map(loop, parts))
    return tuple(np.concatenate(arrays) for arrays in zip(*done, strict=True))


def _tolerances(params: IndexParams) -> tuple[tuple[float, float], tuple[float, float]]:
    return (params.spot_tolerance, params.angular_tolerance), (
        params.final_tolerance,
        0.05 * params.angular_tolerance,
    )


def _n_coarse(part: SpotBatch, params: IndexParams) -> int:
    """Spots, from low angles up, that candidates are refined on before the finalists are chosen."""
    return int(min(part.q.shape[1], 2 * params.n_search_spots))


def _rays(part: SpotBatch) -> Float64Array:
    if part.beam is None:
        return np.zeros_like(part.q)
    out = part.q + part.beam[:, None]
    return np.asarray(out / np.linalg.norm(out, axis=2, keepdims=True), dtype=np.float64)


def _finalists(frame: IntArray, score: Float64Array) -> IntArray:
    """Return each frame's best candidates; scores equal to 1e-6 are the same lattice found twice."""
    order = np.lexsort((np.arange(frame.size), -score, frame))
    ordered_frame, ordered_score = frame[order], np.round(score[order], 4)
    new = np.ones(frame.size, dtype=np.bool_)
    new[1:] = (ordered_frame[1:] != ordered_frame[:-1]) | (ordered_score[1:] != ordered_score[:-1])
    order = order[new]
    rank = np.arange(order.size) - np.searchsorted(frame[order], frame[order], side="left")
    return order[rank < N_FINALISTS]
