"""Batched refinement of orientations, and of the cell within its symmetry, from spot positions.

Everything is in torch, double precision, for many candidates at once; shapes: n candidates, m spots. A candidate's
reciprocal basis is A = R (1 + E) B with a rotation R, a symmetric strain E that keeps the lattice's symmetry, and the
given cell's B.
"""

from dataclasses import dataclass

import torch

STRAIGHT_MAD = 1.4826


@dataclass(frozen=True)
class Spots:
    """Spots of each candidate: ``q`` (n, m, 3) Å⁻¹, ``used`` (n, m), ``beam`` (n, 3) s_in/λ or None."""

    q: torch.Tensor
    used: torch.Tensor
    beam: torch.Tensor | None

    def take(self, which: torch.Tensor) -> "Spots":
        """Return the spots of the candidates at these positions."""
        return Spots(self.q[which], self.used[which], None if self.beam is None else self.beam[which])

    def rays(self) -> torch.Tensor | None:
        """Return unit vectors towards the spots, (n, m, 3), or None when the beam isn't known."""
        if self.beam is None:
            return None
        out = self.q + self.beam[:, None]
        rays: torch.Tensor = out / torch.linalg.vector_norm(out, dim=2, keepdim=True)
        return rays


@dataclass(frozen=True)
class Lattices:
    """Candidates' rotation (n, 3, 3), strain coefficients (n, k) and reciprocal bases (n, 3, 3), Å⁻¹."""

    rotation: torch.Tensor
    strain: torch.Tensor
    axes: torch.Tensor

    def take(self, which: torch.Tensor) -> "Lattices":
        """Return the candidates at these positions."""
        return Lattices(self.rotation[which], self.strain[which], self.axes[which])


def lattice_points_near(q: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """Return the lattice point of each spot's rounded indices, (n, m, 3), Å⁻¹."""
    index = torch.round(q @ torch.linalg.inv(axes).mT)
    return index @ axes.mT


def misfit(spots: Spots, axes: torch.Tensor) -> torch.Tensor:
    """Return spot minus lattice point, (n, m, 3), Å⁻¹."""
    return spots.q - lattice_points_near(spots.q, axes)


def refine_rotation(
    spots: Spots,
    rotation: torch.Tensor,
    basis: torch.Tensor,
    *,
    start: tuple[float, float],
    end: tuple[float, float],
    spacing: float,
    n_steps: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Refine rotations at fixed cell with a tolerance that shrinks geometrically from ``start`` to ``end``.

    A tolerance (Å⁻¹, rad) means first + second · |q|, at most 0.45 of the reciprocal ``spacing``. Each step rounds the
    indices, weights spots by Tukey's biweight of their misfit, and solves for a small rotation.

    Returns
    -------
    rotation : (n, 3, 3)
    tolerance : (n, m), Å⁻¹
        Of the last step.

    """
    length = torch.linalg.vector_norm(spots.q, dim=2)
    for step in range(n_steps):
        part = step / max(n_steps - 1, 1)
        near, tilt = (a * (b / a) ** part for a, b in zip(start, end, strict=True))
        tolerance = (near + tilt * length).clamp(max=0.45 * spacing)
        rotation = _rotation_step(spots, rotation, basis, tolerance)
    return rotation, tolerance


def _rotation_step(
    spots: Spots, rotation: torch.Tensor, basis: torch.Tensor, tolerance: torch.Tensor
) -> torch.Tensor:
    # Least squares for the small turn v that moves lattice points g towards spots: Σ w |d - v × g|² is least where
    # Σ w (|g|² 1 - g gᵀ) v = Σ w g × d. The matrix is singular where all points lie on one line: hence the ridge.
    point = lattice_points_near(spots.q, rotation @ basis)
    difference = spots.q - point
    weight = _biweight(difference.square().sum(dim=2) / tolerance.square(), spots.used)
    weighted = weight[..., None] * point
    square = (weighted * point).sum(dim=(1, 2))
    eye = torch.eye(3, dtype=point.dtype, device=point.device)
    normal = square[:, None, None] * eye - weighted.mT @ point
    ridge = 1e-3 * tolerance.mean(dim=1).square() + 1e-12
    normal = normal + ridge[:, None, None] * eye
    right = torch.linalg.cross(weighted, difference, dim=2).sum(dim=1)
    turn = torch.linalg.solve(normal, right[..., None])[..., 0]
    return rotation_of(turn.clamp(-0.05, 0.05)) @ rotation


def _biweight(squared: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    return (1.0 - squared).clamp_min(0.0).square() * used


def rotation_of(vector: torch.Tensor) -> torch.Tensor:
    """Return exp([v]×), (n, 3, 3), by Rodrigues' formula."""
    # exp([v]×) = 1 + sin φ/φ [v]× + (1 - cos φ)/φ² [v]×², φ = |v|; their series where φ² is within rounding.
    squared = vector.square().sum(dim=1)[:, None, None]
    angle = squared.sqrt().clamp_min(1e-4)
    first = torch.where(squared > 1e-8, torch.sin(angle) / angle, 1.0 - squared / 6.0)
    second = torch.where(squared > 1e-8, (1.0 - torch.cos(angle)) / angle.square(), 0.5 - squared / 24.0)
    cross = cross_matrix(vector)
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return eye + first * cross + second * (cross @ cross)


def cross_matrix(vector: torch.Tensor) -> torch.Tensor:
    """Return [v]× with [v]× w = v × w, (..., 3, 3)."""
    zero = torch.zeros_like(vector[..., 0])
    x, y, z = vector.unbind(dim=-1)
    rows = [torch.stack(r, dim=-1) for r in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return torch.stack(rows, dim=-2)


def log_odds(spots: Spots, axes: torch.Tensor, tolerance: torch.Tensor, volume: float) -> torch.Tensor:
    """Return each candidate's score (n,): Σ -ln(chance to be that near) · max(0, 1 - (misfit/tolerance)²)."""
    # The share of reciprocal space that lies within the tolerance of a lattice point, one of which has 1/volume.
    chance = (4.0 / 3.0 * torch.pi * tolerance**3 * volume).clamp(max=1.0)
    close = (1.0 - misfit(spots, axes).square().sum(dim=2) / tolerance.square()).clamp_min(0.0)
    return (-torch.log(chance) * close * spots.used).sum(dim=1)


def refine_lattice(
    spots: Spots,
    rotation: torch.Tensor,
    basis: torch.Tensor,
    strains: torch.Tensor,
    *,
    tolerance: float,
    cell_sigma: float,
    cell_tolerance: float,
    n_steps: int = 10,
) -> Lattices:
    """Refine rotation and strain together, with separate robust widths across and along the diffracted ray.

    Across the ray a spot's position is sharp; along it the misfit is the excitation error, which for a still is
    anything up to the reflection's width. The two widths are estimated per candidate from the explained spots
    (median absolute deviation), between 0.1 and 1 times ``tolerance``, so a lattice isn't pulled by the loose direction.
    The strain has a normal prior of width ``cell_sigma``; zero keeps the cell. The first steps forgive
    ``cell_tolerance`` · |q| more, halved from step to step, so that a cell that is off grows in from low angles.
    """
    rays = spots.rays()
    n_strains = strains.shape[0] if cell_sigma > 0 else 0
    strain = torch.zeros(len(rotation), strains.shape[0], dtype=spots.q.dtype, device=spots.q.device)
    widths = torch.full((len(rotation), 2), 0.5 * tolerance, dtype=spots.q.dtype, device=spots.q.device)
    length = torch.linalg.vector_norm(spots.q, dim=2)
    for step in range(n_steps):
        # A cell that is off by a share s misses by s·|q|: high angles are forgiven that at first, later ever less.
        scale = 1.0 + length * (cell_tolerance / tolerance * 0.5**step)
        axes = _strained(rotation, strain, basis, strains)
        point = lattice_points_near(spots.q, axes)
        difference = spots.q - point
        metric, widths = _weights(difference / scale[..., None], rays, spots.used, widths, tolerance)
        # The weights were found of scaled misfits; the equations are of unscaled ones.
        metric = metric / scale.square()[..., None, None]
        columns = _derivatives(point, rotation, basis, strains[:n_strains], axes)
        change = _solve(columns, difference, metric, strain[:, :n_strains], cell_sigma)
        rotation = rotation_of(change[:, :3].clamp(-0.02, 0.02)) @ rotation
        strain = torch.cat([strain[:, :n_strains] + change[:, 3:], strain[:, n_strains:]], dim=1)
    return Lattices(rotation, strain, _strained(rotation, strain, basis, strains))


def _strained(
    rotation: torch.Tensor, strain: torch.Tensor, basis: torch.Tensor, strains: torch.Tensor
) -> torch.Tensor:
    stretch = torch.eye(3, dtype=basis.dtype, device=basis.device) + torch.einsum(
        "nk,kij->nij", strain, strains
    )
    return rotation @ stretch @ basis


def _derivatives(
    point: torch.Tensor,
    rotation: torch.Tensor,
    basis: torch.Tensor,
    strains: torch.Tensor,
    axes: torch.Tensor,
) -> torch.Tensor:
    """Return ∂(lattice point)/∂(rotation vector, strains), (n, m, 3, 3 + k)."""
    turn = -cross_matrix(point)
    if not len(strains):
        return turn
    index = point @ torch.linalg.inv(axes).mT
    stretch = torch.einsum("nab,kbc,cd,nmd->nmak", rotation, strains, basis, index)
    return torch.cat([turn, stretch], dim=3)


def _weights(
    difference: torch.Tensor,
    rays: torch.Tensor | None,
    used: torch.Tensor,
    widths: torch.Tensor,
    tolerance: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per-spot inverse covariances times Tukey weights, (n, m, 3, 3), and the new widths (n, 2)."""
    eye = torch.eye(3, dtype=difference.dtype, device=difference.device)
    if rays is None:
        along = torch.zeros_like(difference[..., 0])
        across = torch.linalg.vector_norm(difference, dim=2) / 3**0.5
        outer = torch.zeros_like(difference[..., None] * eye)
    else:
        along = (difference * rays).sum(dim=2)
        across = (difference.square().sum(dim=2) - along.square()).clamp_min(0.0).sqrt() / 2**0.5
        outer = rays[..., :, None] * rays[..., None, :]
    near = used & (difference.square().sum(dim=2) < tolerance**2)
    new = torch.stack([_spread(across, near), _spread(along, near)], dim=1)
    widths = (0.5 * (widths + new)).clamp(0.1 * tolerance, tolerance)
    a, b = widths[:, :1], widths[:, 1:]
    scaled = (across / a).square() * 2 + (along / b).square()
    # Tukey's biweight: nothing beyond 4 σ counts. The covariance is a² across, in two directions, and b² along.
    weight = _biweight(scaled / 16.0, used)
    inner, loose = a.square().reciprocal()[..., None, None], b.square().reciprocal()[..., None, None]
    return weight[..., None, None] * (inner * (eye - outer) + loose * outer), widths


def _spread(value: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """Return 1.48 times the median magnitude over the near spots, (n,); 0 without any."""
    masked = torch.where(near, value.abs(), torch.full_like(value, torch.nan))
    median = torch.nanmedian(masked, dim=1).values
    return STRAIGHT_MAD * torch.nan_to_num(median, nan=0.0)


def _solve(
    columns: torch.Tensor,
    difference: torch.Tensor,
    metric: torch.Tensor,
    strain: torch.Tensor,
    cell_sigma: float,
) -> torch.Tensor:
    weighted = metric @ columns
    normal = torch.einsum("nmak,nmal->nkl", columns, weighted)
    right = torch.einsum("nmak,nma->nk", weighted, difference)
    n_all, n_strain = normal.shape[1], strain.shape[1]
    prior = torch.full((n_all,), 1e-6, dtype=normal.dtype, device=normal.device)
    if n_strain:
        prior[3:] = cell_sigma**-2
        right = torch.cat([right[:, :3], right[:, 3:] - strain * cell_sigma**-2], dim=1)
    # On the turn 1 Å⁻², nothing beside the spots' 10⁴ and more, keeps the system regular where they lie on one line.
    prior[:3] = 1.0
    change: torch.Tensor = torch.linalg.solve(normal + torch.diag(prior), right[..., None])[..., 0]
    return change
