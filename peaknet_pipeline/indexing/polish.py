"""The last refinement of accepted lattices: orientation, cell, and the beam centre if wanted, by maximum likelihood.

Every spot either belongs to the lattice, with a normal error across the diffracted ray (its position) and another along
it (the excitation error, which for a still is anything up to the reflection's width), or is anywhere in the reciprocal
cell. The two widths, the share of strays and the probability that each spot belongs are estimated with the lattice, by
expectation and maximisation (Dempster, Laird & Rubin 1977). The excitation errors hold 40 % of what a still tells about its
orientation, so that their width must be right: with it the error comes down to the Cramér-Rao bound.
"""

from dataclasses import dataclass

import torch

from peaknet_pipeline.indexing.refine import cross_matrix, lattice_points_near, rotation_of

N_STEPS = 8
PRIOR_SPOTS = 5.0
"""How many spots the widths expected beforehand count for."""

PRIOR_ACROSS, PRIOR_ALONG = 0.15, 0.4
"""Widths expected beforehand, as shares of the spot tolerance."""

LEAST_WIDTH, LARGEST_WIDTH = 0.02, 1.0
"""Bounds of the widths, as shares of the spot tolerance."""

MAX_TURN, MAX_SHIFT = 0.01, 0.01
"""Largest change of orientation and beam centre in one step, rad."""


@dataclass(frozen=True)
class Polished:
    """Lattices, one entry each: ``axes`` (n, 3, 3) Å⁻¹, ``shift`` (n, 2) rad, and the spots after it, ``q`` (n, m, 3) Å⁻¹.

    A shift moves the detector by shift · camera length in laboratory x and y.
    """

    axes: torch.Tensor
    shift: torch.Tensor
    q: torch.Tensor


@dataclass(frozen=True)
class _State:
    """Strained orientation, beam shift, widths (n, 2) and share of strays (n,) of the current step."""

    rotation: torch.Tensor
    strain: torch.Tensor
    shift: torch.Tensor
    widths: torch.Tensor
    strays: torch.Tensor


def polish_lattices(
    q: torch.Tensor,
    used: torch.Tensor,
    beam: torch.Tensor | None,
    axes: torch.Tensor,
    basis: torch.Tensor,
    strains: torch.Tensor,
    *,
    tolerance: float,
    cell_sigma: float,
    beam_sigma: float = 0.0,
) -> Polished:
    """Refine lattices on their frames' spots.

    Parameters
    ----------
    q, used : (n, m, 3) Å⁻¹, (n, m) bool
        Spots of each lattice's frame that no earlier lattice explains.
    beam : (n, 3) Å⁻¹, optional
        s_in/λ; without it all directions count alike and the beam centre stays.
    axes, basis : (n, 3, 3), (3, 3) Å⁻¹
        Lattices to start from and the known cell's basis, primitive.
    strains : (k, 3, 3)
        That keep the lattice's symmetry.
    tolerance : float, Å⁻¹
        Scale of the widths.
    cell_sigma, beam_sigma : float
        Normal priors of strain and of the beam's shift (rad); zero keeps them.

    """
    state = _start(axes, basis, strains, tolerance)
    free = strains[:0] if cell_sigma <= 0 else strains
    sigmas = cell_sigma, beam_sigma if beam is not None else 0.0
    for _ in range(N_STEPS):
        state = _step(q, used, beam, basis, strains, free, sigmas, tolerance, state)
    return Polished(_axes(state, basis, strains), state.shift, shifted_spots(q, beam, state.shift))


def shifted_spots(q: torch.Tensor, beam: torch.Tensor | None, shift: torch.Tensor) -> torch.Tensor:
    """Return the spots, (n, m, 3), that the same pixels are on a detector shifted by ``shift`` (n, 2), rad."""
    if beam is None:
        return q
    wave, ahead, across = _beam_frame(beam)
    out = q + beam[:, None]
    # A pixel lies at k / (k · ahead) on the plane at unit distance; the shift moves it there, and the
    # Ewald sphere of radius 1/λ gives its q again.
    place = out / (out @ ahead[:, :, None]) + torch.einsum("nik,nk->ni", across, shift)[:, None]
    unit = place / torch.linalg.vector_norm(place, dim=2, keepdim=True)
    moved: torch.Tensor = wave[:, None, None] * (unit - ahead[:, None])
    return moved


def _beam_frame(beam: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return 1/λ (n,), the beam's direction (n, 3), and laboratory x and y made normal to it, (n, 3, 2)."""
    wave = torch.linalg.vector_norm(beam, dim=1)
    ahead = beam / wave[:, None]
    x = torch.zeros_like(ahead)
    x[:, 0] = 1.0
    x = x - (x * ahead).sum(dim=1, keepdim=True) * ahead
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return wave, ahead, torch.stack([x, torch.linalg.cross(ahead, x)], dim=2)


def _start(axes: torch.Tensor, basis: torch.Tensor, strains: torch.Tensor, tolerance: float) -> _State:
    # Polar decomposition A B⁻¹ = R S by the singular values: R is the nearest rotation, S - 1 the strain, of which
    # only the part that keeps the symmetry is taken (the strains are orthonormal).
    deformed = axes @ torch.linalg.inv(basis)
    u, _, vt = torch.linalg.svd(deformed)
    rotation = u @ vt
    stretch = rotation.mT @ deformed - torch.eye(3, dtype=axes.dtype, device=axes.device)
    strain = torch.einsum("nij,kij->nk", stretch, strains)
    widths = axes.new_tensor([PRIOR_ACROSS, PRIOR_ALONG]).mul(tolerance).repeat(len(axes), 1)
    return _State(rotation, strain, axes.new_zeros((len(axes), 2)), widths, axes.new_full((len(axes),), 0.3))


def _axes(state: _State, basis: torch.Tensor, strains: torch.Tensor) -> torch.Tensor:
    eye = torch.eye(3, dtype=basis.dtype, device=basis.device)
    return state.rotation @ (eye + torch.einsum("nk,kij->nij", state.strain, strains)) @ basis


def _step(
    q: torch.Tensor,
    used: torch.Tensor,
    beam: torch.Tensor | None,
    basis: torch.Tensor,
    strains: torch.Tensor,
    free: torch.Tensor,
    sigmas: tuple[float, float],
    tolerance: float,
    state: _State,
) -> _State:
    axes = _axes(state, basis, strains)
    spots = shifted_spots(q, beam, state.shift)
    point = lattice_points_near(spots, axes)
    difference = spots - point
    rays = torch.zeros_like(q) if beam is None else _unit(spots + beam[:, None])
    # The two parts of each misfit: along the ray it is the excitation error, across it the error of position.
    along = (difference * rays).sum(dim=2)
    across = difference.square().sum(dim=2) - along.square()
    # Expectation: who belongs, at the present widths. Maximisation: widths, then one Gauss-Newton step.
    member = _membership(across, along, used, state, torch.linalg.det(basis), flat=beam is not None)
    widths = _widths(across, along, member, state, tolerance, flat=beam is not None)
    columns = [-cross_matrix(point), _stretch_columns(point, axes, state.rotation, basis, free)]
    if sigmas[1] > 0 and beam is not None:
        columns.append(-_shift_columns(spots, beam))
    change = _solve(torch.cat(columns, dim=3), difference, rays, member, widths, state, sigmas, len(free))
    n_strains = len(free)
    strain = state.strain.clone()
    strain[:, :n_strains] += change[:, 3 : 3 + n_strains]
    shift = state.shift
    if change.shape[1] > 3 + n_strains:
        shift = shift + change[:, 3 + n_strains :].clamp(-MAX_SHIFT, MAX_SHIFT)
    strays = 1.0 - member.sum(dim=1) / used.sum(dim=1).clamp_min(1)
    rotation = rotation_of(change[:, :3].clamp(-MAX_TURN, MAX_TURN)) @ state.rotation
    return _State(rotation, strain, shift, widths, strays.clamp(0.02, 0.95))


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    unit: torch.Tensor = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return unit


def _membership(
    across: torch.Tensor,
    along: torch.Tensor,
    used: torch.Tensor,
    state: _State,
    cell_volume: torch.Tensor,
    *,
    flat: bool,
) -> torch.Tensor:
    """Return the probability that each spot belongs to the lattice, (n, m)."""
    a, b = state.widths[:, :1], state.widths[:, 1:]
    # Bayes: density of a member, N(0, a²) twice across and N(0, b²) along, against one stray per cell of
    # reciprocal space; the volume of that cell is det A.
    norm = (2.0 * torch.pi) ** 1.5 * (a.square() * b if flat else a**3)
    near = torch.exp(-0.5 * (across / a.square() + (along / b).square())) / norm
    strays = state.strays[:, None]
    share: torch.Tensor = used * (1.0 - strays) * near / ((1.0 - strays) * near + strays / cell_volume)
    return share


def _widths(
    across: torch.Tensor,
    along: torch.Tensor,
    member: torch.Tensor,
    state: _State,
    tolerance: float,
    *,
    flat: bool,
) -> torch.Tensor:
    """Return the standard deviations across (per direction) and along the rays, (n, 2)."""
    n = member.sum(dim=1)
    left = (n - 5.0 / 3.0).clamp_min(2.0)  # five parameters were fitted to three coordinates of each spot
    a2 = (member * across).sum(dim=1) / (2.0 if flat else 3.0) / left
    b2 = (member * along.square()).sum(dim=1) / left
    expected = across.new_tensor([PRIOR_ACROSS, PRIOR_ALONG]).mul(tolerance).square()
    # Mean of the measured variance and the expected one, which counts for PRIOR_SPOTS spots.
    squares = torch.stack([a2, b2], dim=1) * n[:, None] + PRIOR_SPOTS * expected
    widths = (squares / (n[:, None] + PRIOR_SPOTS)).sqrt()
    return widths.clamp(LEAST_WIDTH * tolerance, LARGEST_WIDTH * tolerance)


def _stretch_columns(
    point: torch.Tensor, axes: torch.Tensor, rotation: torch.Tensor, basis: torch.Tensor, free: torch.Tensor
) -> torch.Tensor:
    index = point @ torch.linalg.inv(axes).mT
    return torch.einsum("nab,kbc,cd,nmd->nmak", rotation, free, basis, index)


def _shift_columns(spots: torch.Tensor, beam: torch.Tensor) -> torch.Tensor:
    """Return ∂(spot)/∂(shift), (n, m, 3, 2)."""
    wave, ahead, across = _beam_frame(beam)
    ray = _unit(spots + beam[:, None])
    size = (ray @ ahead[:, :, None]) * wave[:, None, None]
    # d(k/|k|) = (1 - r rᵀ) dk / |k|: the part along the ray does not turn it; |k| is 1 / (r · ahead) at unit distance.
    flat = across[:, None] - ray[..., None] * torch.einsum("nma,nak->nmk", ray, across)[:, :, None]
    return size[..., None] * flat


def _solve(
    columns: torch.Tensor,
    difference: torch.Tensor,
    rays: torch.Tensor,
    member: torch.Tensor,
    widths: torch.Tensor,
    state: _State,
    sigmas: tuple[float, float],
    n_strains: int,
) -> torch.Tensor:
    """Return the change of turn, strains and shift, (n, 3 + k), of one weighted Gauss-Newton step with its priors."""
    # Each spot's inverse covariance is W = p [(1 - r rᵀ)/a² + r rᵀ/b²]: p/a² in all directions plus p (1/b² - 1/a²)
    # along the ray. The step solves (Σ Jᵀ W J + P) x = Σ Jᵀ W d - P x₀ with the priors' precisions P at x₀.
    inner, outer = widths.square().reciprocal().unbind(dim=1)
    towards = torch.einsum("nma,nmak->nmk", rays, columns)
    along = (rays * difference).sum(dim=2)
    whole, ray = member * inner[:, None], member * (outer - inner)[:, None]
    normal = torch.einsum("nm,nmak,nmal->nkl", whole, columns, columns)
    normal = normal + torch.einsum("nm,nmk,nml->nkl", ray, towards, towards)
    right = torch.einsum("nm,nmak,nma->nk", whole, columns, difference)
    right = right + torch.einsum("nm,nmk,nm->nk", ray, towards, along)
    current = torch.cat([state.strain[:, :n_strains], state.shift], dim=1)[:, : normal.shape[1] - 3]
    # 1 Å⁻² on the turn only keeps the system regular where a frame's spots lie on one line.
    precision = torch.ones(normal.shape[1], dtype=normal.dtype, device=normal.device)
    precision[3 : 3 + n_strains] = sigmas[0] ** -2 if n_strains else 0.0
    precision[3 + n_strains :] = sigmas[1] ** -2 if sigmas[1] > 0 else 0.0
    right = torch.cat([right[:, :3], right[:, 3:] - current * precision[3:]], dim=1)
    change: torch.Tensor = torch.linalg.solve(normal + torch.diag(precision), right[..., None])[..., 0]
    return change
