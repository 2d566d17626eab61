"""Does a run's own evidence speak against the cell that it was indexed with? The verdict in words."""

from peaknet_pipeline.indexing.examine import CellCheckParams, CellExamination, LayerCount, SublatticeCount
from peaknet_pipeline.steps.label_quality import Verdict

CENTRINGS = {(0, 1, 1): "A", (1, 0, 1): "B", (1, 1, 0): "C", (1, 1, 1): "I"}
"""Centrings by the sum of indices that is even with them."""


def judge_cell(found: CellExamination, params: CellCheckParams | None = None) -> Verdict:
    """Say in words whether a run's peaks agree with the cell; with too few peaks they do."""
    params = params or CellCheckParams()
    layers, sublattice = found.layers, found.sublattice
    if is_full(sublattice, params):
        return Verdict(False, _tell_sublattice(sublattice, params))
    if has_layers(layers, params):
        return Verdict(False, _tell_layers(found, params))
    few = layers.n < params.min_peaks or sublattice.n < params.min_peaks
    return Verdict(True, f"{_tell_right(found)}{': too few peaks to judge the cell fully' if few else ''}")


def has_layers(layers: LayerCount, params: CellCheckParams) -> bool:
    """Tell whether more peaks than may lie on layers of the lattices that don't explain them."""
    sure = layers.n >= params.min_peaks and layers.sigma >= params.min_sigma
    return sure and layers.share > params.max_layer_share


def is_full(sublattice: SublatticeCount, params: CellCheckParams) -> bool:
    """Tell whether more of the explained peaks than may leave out layers of the lattice."""
    return sublattice.n >= params.min_peaks and sublattice.share > params.max_sublattice_share


def _tell_layers(found: CellExamination, params: CellCheckParams) -> str:
    layers = found.layers
    u, v, w = (f"{x:g}" for x in layers.direction)
    return (
        f"{layers.n_on} of {layers.n} low-angle peaks of {found.n_frames} indexed frames lie at no lattice point but on the "
        f"lattice's layers across [{u} {v} {w}], where chance would put {layers.n_chance:.0f}: {layers.share:.0%}, at most "
        f"{params.max_layer_share:.0%} may. So that spacing is right and another axis isn't"
    )


def _tell_sublattice(sublattice: SublatticeCount, params: CellCheckParams) -> str:
    return (
        f"{sublattice.share:.1%} of {sublattice.n} explained peaks have {_condition(sublattice)}, at most "
        f"{params.max_sublattice_share:.0%} may: {_meaning(sublattice)}"
    )


def _tell_right(found: CellExamination) -> str:
    layers, sublattice = found.layers, found.sublattice
    return (
        f"{layers.share:.1%} of {layers.n} low-angle peaks of {found.n_frames} indexed frames lie on layers between lattice "
        f"points, beyond chance; {sublattice.share:.0%} of {sublattice.n} explained peaks are in the fullest sublattice of "
        f"index {sublattice.modulus}"
    )


def _condition(sublattice: SublatticeCount) -> str:
    terms = [
        f"{'-' if x < 0 else ''}{'' if abs(x) == 1 else f'{abs(x):g} '}{name}"
        for x, name in zip(sublattice.condition, "hkl", strict=True)
        if x
    ]
    what = " + ".join(terms).replace("+ -", "- ")
    return f"{what} even" if sublattice.modulus == 2 else f"{what} a multiple of {sublattice.modulus}"


def _meaning(sublattice: SublatticeCount) -> str:
    wanted = tuple(int(abs(x)) if float(x).is_integer() else -1 for x in sublattice.condition)
    if wanted.count(0) == 2 and max(wanted) > 0:
        axis = "abc"[wanted.index(max(wanted))]
        return f"axis {axis} is {sublattice.modulus} times too long"
    if sublattice.modulus == 2 and wanted in CENTRINGS:
        return f"a cell of half the volume explains them, or the centring {CENTRINGS[wanted]} is missing"
    return f"a cell of 1/{sublattice.modulus} of the volume explains them"
