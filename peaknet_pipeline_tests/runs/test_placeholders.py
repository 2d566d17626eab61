"""One group per frame: what stands for % in the data stands for it in every other place of the geometry."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.series import substitute
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import Geometry
from peaknet_pipeline_tests.runs.files import CXI_DATA, HEIGHT, N_PANELS, WIDTH, random_stack, slab_geometry

TAGS = [f"tag-{70 + 3 * k}" for k in range(5)]


@pytest.fixture
def stack() -> np.ndarray:
    return random_stack(len(TAGS), seed=7)


@pytest.fixture
def path(tmp_path: Path, stack: np.ndarray) -> Path:
    """A file as SACLA's converter writes it: a group per frame, with its own energy, distance, mask and modules."""
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["metadata/detector"] = "MPCCD"
        for k, (tag, frame) in enumerate(zip(TAGS, stack, strict=True)):
            file[f"{tag}/data"] = frame.reshape(-1, WIDTH)
            file[f"{tag}/photon_energy_ev"] = 9000.0 + k
            file[f"{tag}/distance"] = 100.0 + k
            mask = np.zeros((N_PANELS * HEIGHT, WIDTH), np.uint8)
            mask[2, 3] = 1
            mask[4, k] = 1  # bad in this frame alone
            file[f"{tag}/mask"] = mask
            for panel in range(N_PANELS):
                file[f"{tag}/m{panel}/data"] = frame[panel]
    return tmp_path / "run.h5"


def sacla_geometry(extra: str = "", *, data: str = "/%/data") -> Geometry:
    """Return the slab geometry with one data set per frame; ``extra`` replaces or adds lines."""
    return parse_geometry(extra + slab_geometry(dims="dim0 = ss\ndim1 = fs\n").text.replace(CXI_DATA, data))


def test_values_are_each_frames_own(path: Path, stack: np.ndarray) -> None:
    text = slab_geometry(dims="dim0 = ss\ndim1 = fs\n").text.replace(CXI_DATA, "/%/data")
    text = text.replace("photon_energy = 9500 eV", "photon_energy = /%/photon_energy_ev eV")
    text = text.replace("clen = 0.1 m", "clen = /%/distance mm")
    with open_run(path, parse_geometry(text)) as run:
        np.testing.assert_allclose(run.photon_energy_ev, 9000.0 + np.arange(5))
        assert run.clen_m is not None
        np.testing.assert_allclose(run.clen_m, (100.0 + np.arange(5)) * 1e-3)
        assert np.array_equal(run.read(0, 5), stack)


def test_a_mask_per_event_counts_where_every_event_agrees(path: Path) -> None:
    bits = "mask0_data = /%/mask\nmask0_goodbits = 0x0\nmask0_badbits = 0xff\n"
    with open_run(path, sacla_geometry(bits)) as run:
        assert np.argwhere(run.bad_pixels).tolist() == [[0, 2, 3]]


def test_a_mask_may_be_one_for_all_events(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["mask"] = file[f"{TAGS[2]}/mask"][()]
    bits = "mask0_data = /mask\nmask0_goodbits = 0x0\nmask0_badbits = 0xff\n"
    with open_run(path, sacla_geometry(bits)) as run:
        assert np.argwhere(run.bad_pixels).tolist() == [[0, 2, 3], [0, 4, 2]]


def test_panels_have_data_sets_of_their_own_in_every_event(path: Path, stack: np.ndarray) -> None:
    text = sacla_geometry().text
    for k in range(N_PANELS):
        rows = f"m{k}/min_ss = {k * HEIGHT}\nm{k}/max_ss = {(k + 1) * HEIGHT - 1}\n"
        own = f"m{k}/min_ss = 0\nm{k}/max_ss = {HEIGHT - 1}\nm{k}/data = /%/m{k}/data\n"
        assert rows in text
        text = text.replace(rows, own)
    geometry = parse_geometry(text)
    with open_run(path, geometry) as run:
        assert run.n_frames == 5
        assert np.array_equal(run.read(1, 4), stack[1:4])
        write_cxi_peaks(path.with_name("peaks.cxi"), empty_table(PEAKS), run)
    with open_run(path.with_name("peaks.cxi"), path.with_name("peaks.geom")) as copy:
        assert np.array_equal(copy.read(0, 5), stack)
    with h5py.File(path, "a") as file:
        del file[f"{TAGS[3]}/m1/data"]
    with pytest.raises(RunError, match=f"no such data set, found /{TAGS[3]}/m1/data"):
        open_run(path, geometry)


def test_a_value_that_one_event_lacks_is_named(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file[f"{TAGS[1]}/photon_energy_ev"]
    text = sacla_geometry().text.replace("= 9500 eV", "= /%/photon_energy_ev eV")
    with pytest.raises(RunError, match=f"no such data set, found /{TAGS[1]}/photon_energy_ev"):
        open_run(path, parse_geometry(text))


def test_more_placeholders_than_the_data_have_are_refused(path: Path) -> None:
    text = sacla_geometry().text.replace("= 9500 eV", "= /%/%/photon_energy_ev eV")
    with pytest.raises(RunError, match=r"/%/%/photon_energy_ev has more placeholders than the data"):
        open_run(path, parse_geometry(text))


def test_placeholders_are_taken_in_order_and_some_may_be_left() -> None:
    assert substitute("/%/x", ("a", "b")) == "/a/x"
    assert substitute("/%/run-%/x", ("a", "b")) == "/a/run-b/x"
    assert substitute("/x", ("a",)) == "/x"


def test_groups_of_several_frames_give_their_values_to_each(path: Path, stack: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, frames, energy in (("a", stack[:2], [9000.0, 9001.0]), ("b", stack[2:], 9002.0)):
            file[f"{name}/data"] = frames.reshape(len(frames), -1, WIDTH)
            file[f"{name}/energy"] = energy
    text = slab_geometry().text.replace(CXI_DATA, "/%/data").replace("= 9500 eV", "= /%/energy eV")
    with open_run(path, parse_geometry(text)) as run:
        assert np.array_equal(run.read(0, 5), stack)
        np.testing.assert_allclose(run.photon_energy_ev, [9000, 9001, 9002, 9002, 9002])


def test_without_a_geometry_the_other_frames_are_named(path: Path) -> None:
    with open_run(path) as run:
        assert any("data sets of the same shape are not read" in doubt for doubt in run.doubts)


@pytest.mark.parametrize(
    "axes", [("%", "n", "ss", "fs"), ("%", "ss", "n", "fs"), ("%", "ss", "fs", "n"), ("n", "%", "ss", "fs")]
)
def test_a_fixed_dimension_may_stand_anywhere(
    tmp_path: Path, stack: np.ndarray, axes: tuple[str, ...]
) -> None:
    order = [("%", "n", "ss", "fs").index(role) for role in axes]
    with h5py.File(tmp_path / "run.cxi", "w") as file:
        file[CXI_DATA] = stack.transpose(order)
    dims = "".join(f"dim{i} = {role}\n" for i, role in enumerate(axes) if role != "n")
    text = slab_geometry().text.replace("dim0 = %\ndim1 = ss\ndim2 = fs\n", dims)
    for k in range(N_PANELS):
        rows = f"m{k}/min_ss = {k * HEIGHT}\nm{k}/max_ss = {(k + 1) * HEIGHT - 1}\n"
        text = text.replace(
            rows, f"m{k}/min_ss = 0\nm{k}/max_ss = {HEIGHT - 1}\nm{k}/dim{axes.index('n')} = {k}\n"
        )
    with open_run(tmp_path / "run.cxi", parse_geometry(text)) as run:
        assert np.array_equal(run.read(0, 5), stack)
        assert np.array_equal(run.read(2, 3), stack[2:3])
        write_cxi_peaks(tmp_path / "peaks.cxi", empty_table(PEAKS), run)
    with open_run(tmp_path / "peaks.cxi", tmp_path / "peaks.geom") as copy:
        assert np.array_equal(copy.read(0, 5), stack)
