"""One mask from every source, each of them accounted for."""

from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.bad_pixels import BadPixelParams, find_bad_pixels
from peaknet_pipeline.runs.make_mask import MaskParams, make_mask
from peaknet_pipeline.runs.masks import write_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.runs.files import random_stack, slab_geometry, write_slab_run


def test_without_wishes_only_bad_pixels_are_masked(realdata: Path) -> None:
    folder = realdata / "crystfel_simulated"
    with open_run(folder / "sim1k.cxi", folder / "sim1k.geom") as run:
        params = BadPixelParams(max_frames=8)
        plain, report = find_bad_pixels(run, params=params), make_mask(run, bad_pixel_params=params)
        assert np.array_equal(plain.bad_pixels, report.bad_pixels)
        assert plain.sources == report.sources
        wished = make_mask(
            run, params=MaskParams(shadow=True, exclude_ice=True, edge_width=2), bad_pixel_params=params
        )
    added = {source.name: source.n_new for source in wished.sources}
    assert sum(added.values()) == wished.bad_pixels.sum()
    assert added["edges"] > 4000
    assert added["rings"] > 10000
    assert list(added)[-3:] == ["shadow", "edges", "rings"]


def test_drawn_masks_and_chips_are_added(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi", 4)
    drawn = np.zeros(random_stack(1).shape[1:], bool)
    drawn[1, 2, 3] = True
    write_mask(drawn, tmp_path / "drawn.h5")
    with open_run(tmp_path / "run.cxi", slab_geometry()) as run:
        report = make_mask(run, params=MaskParams(mask_file=str(tmp_path / "drawn.h5"), chip_ss=3, chip_fs=4))
    assert report.bad_pixels[1, 2, 3]
    assert {s.name: s.n_new for s in report.sources}["drawn.h5"] == 1
    assert report.bad_pixels[0, 2].all()
    assert report.bad_pixels[0, 0].tolist() == [False, False, False, True, True, False, False, False]


def test_what_needs_a_geometry_says_so(tmp_path: Path) -> None:
    write_slab_run(tmp_path / "run.cxi", 4)
    with open_run(tmp_path / "run.cxi") as run, pytest.raises(RunError, match=r"shadow needs a geometry"):
        make_mask(run, params=MaskParams(shadow=True))
