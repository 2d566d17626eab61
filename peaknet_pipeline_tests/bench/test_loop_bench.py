"""The feedback loop on a drifting experiment: what the champion lost, one turn of the loop brings back."""

import pytest

from peaknet_pipeline.bench.loop import EARLY, STREAKED, WIDE, run
from peaknet_pipeline.simulate.experiment import RunConditions

UNSEEN = "drift-r0006"
"""A drifted run that neither teaches nor validates."""


@pytest.mark.timeout(1800)
def test_one_turn_of_the_loop_raises_the_yield_on_the_drifted_runs():
    """The very stages of the assets: labels, training, comparison, inference, curation, and all of them again."""
    told = run(early_frames=12, drifted_frames=10, steps=100, teacher="edge-small")
    rows = {str(row["run"]): row for row in told["drifted_runs"]}
    wide = [rows[key] for key in ("drift-r0004", "drift-r0005", UNSEEN)]
    assert sum(row["before"] for row in wide) <= 3, rows
    assert sum(row["after"] for row in wide) >= 15, rows
    assert rows[UNSEEN]["after"] >= rows[UNSEEN]["before"] + 4, rows
    assert sum(row["after"] for row in rows.values()) > sum(row["before"] for row in rows.values())
    assert rows["drift-r0003"]["curated"] >= 1, rows
    assert told["champion"] == "student-v0002"
    assert "no worse" in told["decision"]


def test_the_background_changes_with_the_drift():
    assert len(EARLY) == 2
    assert min(STREAKED.background_factor, WIDE.background_factor) > RunConditions().background_factor
