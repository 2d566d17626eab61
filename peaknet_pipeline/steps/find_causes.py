"""Why is nothing indexed? A run's causes in words, the most likely first, each with the number that says so."""

from collections.abc import Sequence

import numpy as np

from peaknet_pipeline.schemas import DIAGNOSIS, DiagnosisTable
from peaknet_pipeline.steps.lattice_causes import find_lattice_causes
from peaknet_pipeline.steps.peak_causes import (
    Evidence,
    Finding,
    find_hot_pixels,
    find_rings_of_peaks,
    find_saturation,
    find_too_few,
)
from peaknet_pipeline.tables import make_table

PEAK_CAUSES = (find_too_few, find_hot_pixels, find_saturation, find_rings_of_peaks)
"""Those that peaks tell at once; other cells and geometries are tried for a minute or more."""


def find_causes(evidence: Evidence, *, at_once: bool = False) -> list[Finding]:
    """Return the causes found, those that concern the largest share first; ``at_once``: without trying cells and geometries."""
    causes = PEAK_CAUSES if at_once else (*PEAK_CAUSES, find_lattice_causes)
    return sorted((f for cause in causes for f in cause(evidence)), key=lambda f: -f.share)


def tabulate(findings: Sequence[Finding]) -> DiagnosisTable:
    """Return causes as a DIAGNOSIS table."""
    return make_table(
        DIAGNOSIS,
        {
            "rank": np.arange(1, len(findings) + 1),
            "cause": [f.cause for f in findings],
            "share": [f.share for f in findings],
            "told": [f.told for f in findings],
            "remedy": [f.remedy for f in findings],
        },
    )


def describe(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """Return the diagnosis in words, a line per cause."""
    hits, indexed = len(evidence.hits()), len(evidence.indexed_hits())
    rates = f"{hits} of {evidence.n_frames} frames are hits, {indexed} of them index"
    if not findings:
        return f"Nothing wrong: {rates}."
    lines = [f"{i}. {f.cause}: {f.told}. {f.remedy}" for i, f in enumerate(findings, start=1)]
    return "\n".join([f"{rates}.", *lines])
