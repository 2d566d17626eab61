"""Experiments on detectors from geometry files."""

from dataclasses import replace

import numpy as np
import pytest

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.geometry.maps import geometry_bad_pixels, panel_table
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.place import move_experiment, stack_panels

TEXT = """
photon_energy = 8000 eV
clen = 0.08
res = 5000
adu_per_photon = 3
dim0 = %
dim1 = ss
dim2 = fs
bad_a/panel = b
bad_a/min_fs = 70
bad_a/max_fs = 80
bad_a/min_ss = 10
bad_a/max_ss = 12
bad_all/min_fs = 0
bad_all/max_fs = 119
bad_all/min_ss = 30
bad_all/max_ss = 31
a/min_fs = 0
a/max_fs = 59
a/min_ss = 0
a/max_ss = 99
a/corner_x = -70
a/corner_y = -50
a/fs = 1.0x +0.0y
a/ss = 0.0x +1.0y
b/min_fs = 60
b/max_fs = 119
b/min_ss = 0
b/max_ss = 79
b/corner_x = 10.25
b/corner_y = -49.5
b/fs = 0.99995x +0.01y
b/ss = -0.01x +0.99995y
"""


def test_side_by_side_panels_are_stacked_and_stay_where_they_are():
    geometry = parse_geometry(TEXT)
    stacked = stack_panels(geometry)
    np.testing.assert_array_equal(panel_table(stacked), panel_table(geometry))
    assert stacked.stack_shape == geometry.stack_shape == (2, 100, 60)
    assert [(p.min_ss, p.max_ss, p.min_fs) for p in stacked.panels] == [(0, 99, 0), (100, 179, 0)]
    np.testing.assert_array_equal(geometry_bad_pixels(stacked), geometry_bad_pixels(geometry))
    assert geometry_bad_pixels(stacked)[1, 10:13, 10:21].all()


def test_frames_are_simulated_on_a_detector_from_a_file(tmp_path):
    experiment = move_experiment(demo_experiment(), parse_geometry(TEXT))
    assert experiment.beam.photon_energy_ev == 8000
    assert experiment.response.adu_per_photon == 3
    frames = list(simulate_frames(experiment, 6, 1))
    assert frames[0].data.shape == (2, 100, 60)
    assert any(f.reflections and len(f.reflections["fs"]) for f in frames)
    assert not any(f.spot_photons[1, 80:].any() for f in frames)
    assert write_experiment_files(experiment, tmp_path)[0].is_file()


def test_a_geometry_without_camera_length_is_refused():
    geometry = parse_geometry(TEXT)
    open_ended = replace(geometry, panels=tuple(replace(p, clen_m=float("nan")) for p in geometry.panels))
    with pytest.raises(GeometryError, match="camera length"):
        stack_panels(open_ended)
