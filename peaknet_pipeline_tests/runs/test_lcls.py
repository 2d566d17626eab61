"""LCLS runs through psana's indexed interface, acted by a stand-in module: psana itself is not on PyPI."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.runs.files import module_geometry, random_stack, slab_geometry

N = 5
FRAMES = random_stack(N, dtype="float32")
ENERGY = [9480.0, None, 9500.0, 9520.0, float("nan")]


class AreaDetector:
    """Calibrated frames by event; the third event lacks the detector; one masked pixel."""

    def calib(self, event):
        return None if event == 2 else FRAMES[event]

    def mask(self, run, **wanted):
        assert run == 13
        assert wanted == {"calib": True, "status": True, "edges": True, "central": True}
        good = np.ones(FRAMES.shape[1:], dtype=np.uint8)
        good[2, 4, 6] = 0
        return good


class Beam:
    """Photon energies by event, as EBeam gives them."""

    def get(self, event):
        value = ENERGY[event]
        return None if value is None else SimpleNamespace(ebeamPhotonEnergy=lambda: value)


@pytest.fixture
def psana(monkeypatch):
    """A module with psana1's names that serves one run."""
    opened = []

    def source(text):
        opened.append(text)
        if text != "exp=mfxp22820:run=13:idx":
            raise RuntimeError("no such run")
        run = SimpleNamespace(times=lambda: list(range(N)), event=lambda t: t, run=lambda: 13)
        return SimpleNamespace(runs=lambda: iter([run]))

    detectors = {"epix10k2M": AreaDetector(), "EBeam": Beam()}
    module = SimpleNamespace(DataSource=source, Detector=lambda name: detectors[name])
    monkeypatch.setitem(sys.modules, "psana", module)
    return opened


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """The file that names the run."""
    path = tmp_path / "r0013.psana"
    path.write_text("exp: mfxp22820\nrun: 13\ndetector: epix10k2M\n")
    return path


@pytest.mark.parametrize(
    "geometry", [None, slab_geometry(), module_geometry()], ids=["none", "slab", "modules"]
)
def test_frames_come_as_stacks_and_a_missing_one_is_nan(psana, named, geometry):
    with open_run(named, geometry) as run:
        assert run.info.file_format == "lcls"
        assert (run.n_frames, run.stack_shape) == (N, FRAMES.shape[1:])
        np.testing.assert_array_equal(run.read(3, 5), FRAMES[3:5])
        assert np.isnan(run.read(2, 3)).all()
        assert np.argwhere(run.bad_pixels).tolist() == [[2, 4, 6]]


def test_energies_are_the_machines_and_else_the_geometrys(psana, named):
    with open_run(named, slab_geometry()) as run:
        assert run.photon_energy_ev.tolist() == [9480.0, 9500.0, 9500.0, 9520.0, 9500.0]
        assert run.geometry is not None
        assert run.geometry.photon_energy_ev == 9500.0


def test_a_camera_length_at_a_path_that_such_runs_do_not_have_is_doubted(psana, named):
    geometry = parse_geometry(slab_geometry().text.replace("clen = 0.1 m", "clen = /LCLS/encoder"))
    report = inspect_path(named, geometry)
    assert report.is_usable
    assert "The camera length is not known: runs of this kind have no /LCLS/encoder" in " ".join(
        report.doubts
    )


def test_without_psana_the_error_says_where_to_work(named, monkeypatch):
    monkeypatch.setitem(sys.modules, "psana", None)
    with pytest.raises(RunError, match="Work in an LCLS environment"):
        open_run(named)
    report = inspect_path(named)
    assert not report.is_usable
    assert "psana" in report.problems[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exp: mfxp22820\n", "does not name an LCLS run"),
        ("exp: 'a:run=1'\nrun: 13\ndetector: x\n", "does not name an LCLS run"),
        ("exp: mfxp22820\nrun: 14\ndetector: epix10k2M\n", "psana cannot open exp=mfxp22820:run=14:idx"),
        ("exp: mfxp22820\nrun: 13\ndetector: nothing\n", "Check experiment, run and detector"),
        ("- [\n", "not readable as YAML"),
    ],
)
def test_what_cannot_be_opened_is_told(psana, tmp_path, text, words):
    path = tmp_path / "r0013.psana"
    path.write_text(text)
    with pytest.raises(RunError, match=words):
        open_run(path)
