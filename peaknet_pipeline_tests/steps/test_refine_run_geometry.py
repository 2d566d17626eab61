"""What the refined geometry of a run is told with."""

import pandas as pd
import pytest

from peaknet_pipeline.indexing.geometry_refine import GeometryRefinement, GeometryRefineParams
from peaknet_pipeline.steps.refine_run_geometry import distance_doubt
from peaknet_pipeline_tests.runs.files import slab_geometry


@pytest.mark.parametrize(("share", "doubted"), [(0.0, False), (1e-4, False), (5e-3, True), (-2e-2, True)])
def test_a_distance_that_moves_asks_whether_the_cell_is_exact(share, doubted):
    geometry = slab_geometry()
    shift = share * geometry.panels[0].clen_m
    found = GeometryRefinement(geometry, (0.0, 0.0, shift), (0.0, 0.0), 1.0, 0.5, pd.DataFrame())
    told = distance_doubt(found, GeometryRefineParams())
    assert ("cell file" in told) is doubted
    assert f"{1e3 * shift:+.2f} mm" in told or not doubted
    assert distance_doubt(found, GeometryRefineParams(refine_distance=False)) == ""
