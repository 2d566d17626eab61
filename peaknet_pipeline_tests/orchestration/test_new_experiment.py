"""An experiment that brings no cell, and one whose geometry is refined from its own run."""

import pytest

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.schemas import INDEX, PANEL_RESIDUALS
from peaknet_pipeline.store.run_files import read_context
from peaknet_pipeline.tables import read_table
from peaknet_pipeline_tests.orchestration.conftest import KEYS, failure_text

CHAIN = ["raw_run", "run_statistics", "classical_peaks", "found_cell", "classical_index"]


def test_without_a_cell_one_is_found_and_a_refined_geometry_is_used_when_asked_for(fresh):
    register_runs(fresh.instance, KEYS)
    folder = fresh.store.raw_root / "small"
    known = read_cell(folder / "small.cell")
    (folder / "small.cell").unlink()
    result = fresh.materialize([*CHAIN, "refined_geometry"], KEYS[0])
    assert result.success, failure_text(result)
    found = read_cell(fresh.store.file("found_cell", KEYS[0], ".cell"))
    lattices = read_table(fresh.store.table("classical_index", KEYS[0]), INDEX)
    panels = read_table(fresh.store.table("refined_geometry/panels", KEYS[0]), PANEL_RESIDUALS)

    assert (found.lattice_type, found.centering) == (known.lattice_type, known.centering)
    assert found.a == pytest.approx(known.a, rel=0.01)
    assert found.c == pytest.approx(known.c, rel=0.01)
    assert lattices["frame"].nunique() >= 3
    assert panels["after_px"].mean() <= 1.02 * panels["before_px"].mean()

    settings = folder / "experiment.yaml"
    settings.write_text(settings.read_text() + "geometry: refined\n")
    refined = fresh.store.file("refined_geometry", KEYS[0], ".geom")
    assert read_context(fresh.store, KEYS[1]).experiment.geometry == refined
    assert len(read_geometry(refined).panels) == len(read_geometry(folder / "small.geom").panels)
    again = fresh.materialize(CHAIN, KEYS[1])
    assert again.success, failure_text(again)


def test_a_refined_geometry_that_was_not_made_is_told(fresh):
    (fresh.store.raw_root / "small" / "experiment.yaml").write_text("geometry: refined\n")
    with pytest.raises(GeometryError, match=r"no refined geometry.*materialize refined_geometry"):
        read_context(fresh.store, KEYS[0])
