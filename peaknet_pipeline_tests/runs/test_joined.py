"""Several files that are one run: frames in order, wherever the reading starts."""

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.runs.cxi_images import link_images, slab_of
from peaknet_pipeline.runs.joined import RunPart, join_runs
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.runs.files import (
    HEIGHT,
    N_PANELS,
    WIDTH,
    slab_geometry,
    write_run,
    write_slab_run,
)


@pytest.fixture
def parts(tmp_path):
    """Three files of 4, 3 and 5 frames, and all frames in order."""
    paths = [tmp_path / f"run7-{k}.h5" for k in range(3)]
    return paths, np.concatenate([write_slab_run(p, n) for p, n in zip(paths, (4, 3, 5), strict=True)])


def test_frames_of_several_files_are_read_in_order_across_their_borders(parts):
    paths, frames = parts
    with open_run(paths, slab_geometry()) as run:
        assert run.n_frames == run.info.n_frames == 12
        for start, stop in ((0, 12), (3, 5), (4, 7), (6, 12), (11, 12), (5, 5)):
            np.testing.assert_array_equal(run.read(start, stop), frames[start:stop])
        assert [run.locate(k) for k in (0, 3, 4, 7, 11)] == [
            (paths[0], 0), (paths[0], 3), (paths[1], 0), (paths[2], 0), (paths[2], 4),
        ]  # fmt: skip
        assert run.info.files == tuple(paths)
        assert run.path_to_open == tuple(paths)
        assert run.info.size_bytes == sum(path.stat().st_size for path in paths)
        with pytest.raises(RunError, match="no such frames"):
            run.read(11, 13)


def test_only_chosen_frames_of_a_file_count_in_the_order_in_which_they_are_chosen(parts):
    paths, frames = parts
    geometry = slab_geometry()
    first, last = (open_run(path, geometry) for path in (paths[0], paths[2]))
    chosen = [RunPart(first, np.array([2, 3, 0])), RunPart(last, np.array([4]))]
    with join_runs(chosen, paths[0], geometry=geometry) as run:
        np.testing.assert_array_equal(run.read(0, 4), frames[[2, 3, 0, 11]])
        assert run.locate(2) == (paths[0], 0)
        assert run.locate(3) == (paths[2], 4)


def test_energy_and_camera_length_come_from_each_file(tmp_path):
    paths = [tmp_path / "run7-0.h5", tmp_path / "run7-1.h5"]
    for path, energy, clen in zip(paths, (9000.0, 9600.0), (100.0, 120.0), strict=True):
        write_slab_run(
            path, 2, values={"/LCLS/photon_energy_eV": np.full(2, energy), "/clen": np.full(2, clen)}
        )
    text = slab_geometry().text.replace("clen = 0.1 m", "clen = /clen")
    geometry_file = tmp_path / "run.geom"
    geometry_file.write_text(
        text.replace("photon_energy = 9500 eV", "photon_energy = /LCLS/photon_energy_eV")
    )
    with open_run(paths, geometry_file) as run:
        assert run.photon_energy_ev.tolist() == [9000.0, 9000.0, 9600.0, 9600.0]
        assert run.geometry.photon_energy_ev == 9300.0
        assert run.clen_m is not None
        assert len(run.clen_m) == 4
        assert run.geometry.panels[0].clen_m == pytest.approx(np.median(run.clen_m))


def test_a_pixel_that_one_file_calls_bad_is_bad_in_the_run(tmp_path):
    paths = [tmp_path / "run7-0.cxi", tmp_path / "run7-1.cxi"]
    for k, path in enumerate(paths):
        mask = np.zeros((N_PANELS * HEIGHT, WIDTH), dtype="u2")
        mask[k, 5] = 1
        write_slab_run(path, 2, mask=mask)
    with open_run(paths, slab_geometry()) as run:
        assert run.bad_pixels[0, :2, 5].all()
        assert run.bad_pixels.sum() == 2


def test_files_that_do_not_belong_together_are_refused_by_name(tmp_path):
    write_slab_run(tmp_path / "a.h5", 2)
    write_run(tmp_path / "b.h5", np.zeros((2, N_PANELS * HEIGHT, WIDTH), dtype="f4"))
    with pytest.raises(
        RunError, match=r"b\.h5: files of one run differ in their frames' type, expected as in .*a\.h5"
    ):
        open_run([tmp_path / "a.h5", tmp_path / "b.h5"], slab_geometry())
    with pytest.raises(RunError, match="no such file"):
        open_run([tmp_path / "a.h5", tmp_path / "c.h5"], slab_geometry())
    with pytest.raises(RunError, match="a run of so many files"):
        open_run([], slab_geometry())


def test_a_folder_that_holds_the_files_of_one_run_is_that_run(tmp_path):
    folder = tmp_path / "r0007"
    folder.mkdir()
    frames = [write_slab_run(folder / f"lyso-{k}.h5", 2) for k in (2, 10)]
    (folder / "notes.txt").write_text("second crystal")
    with open_run(folder, slab_geometry()) as run:
        np.testing.assert_array_equal(run.read(0, 4), np.concatenate(frames))
        assert run.info.path == run.path_to_open == folder


@pytest.mark.parametrize("chosen", [None, [1, 0]])
def test_the_images_of_a_peak_list_are_those_of_every_file(parts, tmp_path, chosen):
    paths, frames = parts
    geometry = slab_geometry()
    picked = None if chosen is None else np.array(chosen)
    opened = [RunPart(open_run(path, geometry), picked) for path in paths]
    expected = frames if chosen is None else frames[[1, 0, 5, 4, 8, 7]]
    wanted = np.array([0, 2, 4, 5])
    with join_runs(opened, paths[0], geometry=geometry) as run, new_hdf5(tmp_path / "p.cxi") as file:
        link_images(file, tmp_path / "p.cxi", run, slab_of(run), wanted)
    with h5py.File(tmp_path / "p.cxi") as file:
        images = file["/entry_1/data_1/data"][:]
    np.testing.assert_array_equal(images.reshape(4, N_PANELS, HEIGHT, WIDTH), expected[wanted])
