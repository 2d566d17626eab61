"""Runs open to the frames they hold, and what is wrong with them is told with file, problem and remedy."""

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import GeometryError, RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry, read_geometry
from peaknet_pipeline.geometry.usable import flag_unusable, usable_values
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline_tests.runs.files import (
    CXI_DATA,
    HEIGHT,
    N_PANELS,
    WIDTH,
    module_geometry,
    random_stack,
    slab_geometry,
    write_run,
    write_slab_run,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.cxi"


def test_a_slab_of_equal_panels_is_read_without_a_copy(path: Path) -> None:
    stack = write_slab_run(path)
    with open_run(path, slab_geometry()) as run:
        assert run.info.file_format == "cxi"
        assert run.info.stack_shape == (N_PANELS, HEIGHT, WIDTH)
        assert run.info.dtype == "uint16"
        frames = run.read(1, 3)
        assert frames.dtype == np.uint16
        assert frames.base is not None  # a view of what HDF5 read
        assert np.array_equal(frames, stack[1:3])
        assert np.array_equal(run.photon_energy_ev, [9500.0] * 4)
        assert run.read(2, 2).shape == (0, N_PANELS, HEIGHT, WIDTH)


def test_a_module_dimension_gives_the_same_stack(path: Path) -> None:
    stack = random_stack(3)
    write_run(path, stack)
    with open_run(path, module_geometry()) as run:
        assert np.array_equal(run.read(0, 3), stack)


def test_panels_in_another_order_with_gaps_and_unequal_sizes_find_their_pixels(path: Path) -> None:
    slab = np.arange(2 * 20 * 12).reshape(2, 20, 12).astype(np.int32)
    write_run(path, slab)
    head = f"photon_energy = 9500\nclen = 0.1\nres = 10000\nadu_per_photon = 1\ndata = {CXI_DATA}\n"
    windows = {"b": (2, 9, 10, 15), "a": (0, 4, 1, 3)}
    body = "".join(
        f"{n}/min_fs = {w[0]}\n{n}/max_fs = {w[1]}\n{n}/min_ss = {w[2]}\n{n}/max_ss = {w[3]}\n"
        f"{n}/corner_x = 0\n{n}/corner_y = 0\n{n}/fs = x\n{n}/ss = y\n"
        for n, w in windows.items()
    )
    with open_run(path, parse_geometry(head + body)) as run:
        frames = run.read(0, 2)
        assert frames.shape == (2, 2, 6, 8)
        assert np.array_equal(frames[:, 0], slab[:, 10:16, 2:10])
        assert np.array_equal(frames[:, 1, :3, :5], slab[:, 1:4, 0:5])
        assert not frames[:, 1, 3:].any()
        assert run.bad_pixels.sum() == 6 * 8 - 3 * 5


def test_panels_with_data_sets_of_their_own_are_put_together(path: Path) -> None:
    stack = random_stack(3)
    with h5py.File(path, "w") as file:
        for k in range(N_PANELS):
            file[f"/module{k}/data"] = stack[:, k]
    text = (
        "photon_energy = 9500\nclen = 0.1\nres = 10000\nadu_per_photon = 1\ndim0 = %\ndim1 = ss\ndim2 = fs\n"
    )
    for k in range(N_PANELS):
        text += f"m{k}/data = /module{k}/data\nm{k}/min_fs = 0\nm{k}/max_fs = 7\n"
        text += f"m{k}/min_ss = 0\nm{k}/max_ss = 5\n"
        text += f"m{k}/corner_x = {k}\nm{k}/corner_y = 0\nm{k}/fs = x\nm{k}/ss = y\n"
    with open_run(path, parse_geometry(text)) as run:
        assert np.array_equal(run.read(0, 3), stack)


def test_a_frame_axis_that_comes_last_but_two_is_moved(path: Path) -> None:
    stack = random_stack(4)
    write_run(path, np.moveaxis(stack, 0, 1))
    head = f"photon_energy = 9500\nclen = 0.1\nres = 10000\nadu_per_photon = 1\ndata = {CXI_DATA}\n"
    body = "".join(
        f"m{k}/dim0 = {k}\nm{k}/dim1 = %\nm{k}/dim2 = ss\nm{k}/dim3 = fs\n"
        f"m{k}/min_fs = 0\nm{k}/max_fs = 7\nm{k}/min_ss = 0\nm{k}/max_ss = 5\n"
        f"m{k}/corner_x = 0\nm{k}/corner_y = 0\nm{k}/fs = x\nm{k}/ss = y\n"
        for k in range(N_PANELS)
    )
    with open_run(path, parse_geometry(head + body)) as run:
        assert run.n_frames == 4
        assert np.array_equal(run.read(1, 4), stack[1:4])


def test_a_single_two_dimensional_frame_is_a_run_of_one(path: Path) -> None:
    stack = random_stack(1)
    with h5py.File(path, "w") as file:
        file[CXI_DATA] = stack.reshape(N_PANELS * HEIGHT, WIDTH)
    with open_run(path, slab_geometry()) as run:
        assert run.n_frames == 1
        assert np.array_equal(run.read(0, 1), stack)


def test_the_largest_numeric_stack_is_found_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["notes"] = "hello"
        file["small/stack"] = np.zeros((2, 4, 4))
        file["deep/er/images"] = random_stack(2)[:, 0]
        file["a_big_table"] = np.zeros((500, 3))
    with open_run(path) as run:
        assert run.info.data_path == "/deep/er/images"
        assert run.info.file_format == "hdf5"
        assert run.stack_shape == (1, HEIGHT, WIDTH)
        assert run.geometry is None
        assert np.isnan(run.photon_energy_ev).all()


@pytest.mark.parametrize("pattern", ["/%/data", "/run/tag-%/data"])
def test_one_data_set_per_frame_is_a_run(path: Path, pattern: str) -> None:
    stack = random_stack(12)
    with h5py.File(path, "w") as file:
        for i, frame in enumerate(stack):
            file[pattern.replace("%", f"{100 + i}")] = frame.reshape(-1, WIDTH)
        file["/run/notes"] = 1
    geometry = parse_geometry(slab_geometry(dims="dim0 = ss\ndim1 = fs\n").text.replace(CXI_DATA, pattern))
    with open_run(path, geometry) as run:
        assert run.n_frames == 12
        assert np.array_equal(run.read(3, 9), stack[3:9])
        write_cxi_peaks(path.with_name("peaks.cxi"), empty_table(PEAKS), run)
    with open_run(path.with_name("peaks.cxi"), path.with_name("peaks.geom")) as copy:
        assert np.array_equal(copy.read(0, 12), stack)
    with pytest.raises(RunError, match=r"no data set matches, expected /none/%/data"):
        open_run(path, geometry, data_path="/none/%/data")


def test_big_endian_frames_come_in_native_order(path: Path) -> None:
    stack = random_stack(2).astype(">u2")
    write_run(path, stack)
    with open_run(path, module_geometry()) as run:
        frames = run.read(0, 2)
        assert frames.dtype == np.dtype("uint16")
        assert np.array_equal(frames, stack)


def test_energy_and_camera_length_per_frame_come_from_the_file(path: Path) -> None:
    values = {
        "/LCLS/photon_energy_eV": np.array([9000.0, 9500, 9600, 9700]),
        "/LCLS/detector_1/EncoderValue": -450.0,
    }
    write_slab_run(path, values=values)
    text = "photon_energy = /LCLS/photon_energy_eV\nclen = /LCLS/detector_1/EncoderValue\ncoffset = 0.55\n"
    text += slab_geometry().text.split("\n", 2)[2].replace("adu_per_photon = 1", "adu_per_eV = 0.001")
    with open_run(path, parse_geometry(text)) as run:
        assert run.photon_energy_ev.tolist() == [9000.0, 9500, 9600, 9700]
        assert run.geometry is not None
        assert run.geometry.panels[0].clen_m == pytest.approx(0.1)
        assert run.geometry.panels[0].adu_per_photon == pytest.approx(9.55)
        assert run.clen_m is not None
        assert run.clen_m.tolist() == [-0.45] * 4


def test_energy_is_found_in_the_file_when_no_geometry_names_it(path: Path) -> None:
    write_slab_run(path, values={"/entry_1/instrument_1/source_1/energy": 9500 * 1.602176634e-19})
    with open_run(path) as run:
        np.testing.assert_allclose(run.photon_energy_ev, 9500.0)


def test_a_cxi_mask_is_used_and_zero_is_good(path: Path) -> None:
    mask = np.zeros((N_PANELS * HEIGHT, WIDTH), np.uint16)
    mask[7, 3] = 4
    write_slab_run(path, mask=mask)
    with open_run(path, slab_geometry()) as run:
        assert np.argwhere(run.bad_pixels).tolist() == [[1, 1, 3]]
        assert run.info.mask_path == "/entry_1/data_1/mask"
        assert [(s.name, s.n_new) for s in run.mask_sources] == [("geometry", 0), ("/entry_1/data_1/mask", 1)]


def test_declared_bits_decide_what_is_bad(path: Path) -> None:
    mask = np.full((N_PANELS * HEIGHT, WIDTH), 1, np.uint8)
    mask[0, 0], mask[0, 1], mask[0, 2] = 0, 3, 5
    write_slab_run(path, values={"/m": mask})
    extra = "mask0_data = /m\nmask0_goodbits = 0x01\nmask0_badbits = 0x02\n"
    with open_run(path, slab_geometry(extra)) as run:
        assert np.argwhere(run.bad_pixels).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_a_mask_file_lies_beside_the_geometry(tmp_path: Path, path: Path) -> None:
    write_slab_run(path)
    (tmp_path / "geometry").mkdir()
    mask = np.zeros((N_PANELS * HEIGHT, WIDTH), np.uint8)
    mask[17, 7] = 1
    with h5py.File(tmp_path / "geometry" / "m.h5", "w") as file:
        file["/mask"] = mask
    geom = tmp_path / "geometry" / "d.geom"
    geom.write_text(slab_geometry("mask0_data = /mask\nmask0_file = m.h5\n").text)
    with open_run(path, geom) as run:
        assert np.argwhere(run.bad_pixels).tolist() == [[2, 5, 7]]
        assert run.info.geometry_path == geom


def test_flags_depend_on_the_frame_and_are_strict() -> None:
    frames = np.array([[[[0.0, 1.0, 2.0, 5.0, 9.0, np.nan]]]])
    geometry = slab_geometry("flag_lessthan = 1\nflag_morethan = 5\nflag_equal = 2\n")
    flags = flag_unusable(frames, usable_values(geometry))
    assert flags is not None
    assert flags.ravel().tolist() == [True, False, True, False, True, False]
    assert flag_unusable(frames, usable_values(slab_geometry())) is None


def test_nan_frames_are_read_as_they_are(path: Path) -> None:
    frames = random_stack(2, dtype="float32")
    frames[0, 1, 2, 3] = np.nan
    write_run(path, frames)
    with open_run(path, module_geometry()) as run:
        assert np.isnan(run.read(0, 1)[0, 1, 2, 3])


def test_the_checksum_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    names = [tmp_path / n for n in ("a.cxi", "b.cxi", "c.cxi")]
    write_slab_run(names[0])
    names[1].write_bytes(names[0].read_bytes())
    content = bytearray(names[0].read_bytes())
    content[-9] ^= 1
    sums = []
    for name in names[:2]:
        with open_run(name, slab_geometry()) as run:
            sums.append(run.info.checksum)
            assert run.info.size_bytes == name.stat().st_size
    assert sums[0] == sums[1]
    stack = random_stack(4, seed=1).reshape(4, N_PANELS * HEIGHT, WIDTH)
    write_run(names[2], stack)
    with open_run(names[2], slab_geometry()) as run:
        assert run.info.checksum != sums[0]


def test_frames_outside_the_run_are_refused(path: Path) -> None:
    write_slab_run(path)
    with (
        open_run(path, slab_geometry()) as run,
        pytest.raises(RunError, match=r"no such frames.*0 … 4.*3 … 5"),
    ):
        run.read(3, 5)


@pytest.mark.parametrize(
    ("name", "format_name", "n_frames", "n_bad"),
    [
        ("crystfel_simulated/sim1k.cxi", "cxi", 30, 1339),
        ("crystfel_simulated/jf4m.cxi", "cxi", 3, 8 * 514 * 1030 - 4083540),
        ("snase/stills.h5", "hdf5", 10, 0),
        ("thaumatin/stills.h5", "hdf5", 10, 0),
        ("pilatus6m/still.h5", "hdf5", 1, None),
    ],
)
def test_real_runs_open(
    realdata: Path, name: str, format_name: str, n_frames: int, n_bad: int | None
) -> None:
    path = realdata / name
    geom = path.with_suffix(".geom") if path.suffix == ".cxi" else next(path.parent.glob("*.geom"))
    with open_run(path, geom) as run:
        assert run.info.file_format == format_name
        assert run.n_frames == n_frames
        if n_bad is not None:
            assert run.bad_pixels.sum() == n_bad
        with h5py.File(path) as file:
            raw = file[run.info.data_path][n_frames - 1]
        np.testing.assert_array_equal(run.read(n_frames - 1, n_frames).reshape(raw.shape), raw)
        assert read_geometry(geom).stack_shape == run.stack_shape


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.cxi: no such file"):
        open_run(path)


def test_an_empty_file_is_named(path: Path) -> None:
    path.touch()
    with pytest.raises(RunError, match=r"the file is empty.*found 0 bytes"):
        open_run(path)


def test_a_truncated_file_tells_both_sizes(path: Path) -> None:
    write_slab_run(path)
    size = path.stat().st_size
    os.truncate(path, size - 100)
    with pytest.raises(
        RunError, match=rf"truncated, expected {size} bytes, found {size - 100} bytes. Copy it again"
    ):
        open_run(path, slab_geometry())


def test_a_text_file_is_no_run(path: Path) -> None:
    path.write_text("not HDF5 at all" * 100)
    with pytest.raises(RunError, match=r"not an HDF5 file"):
        open_run(path)


def test_a_run_without_frames_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset(CXI_DATA, (0, 18, 8), np.uint16, maxshape=(None, 18, 8))
    with pytest.raises(RunError, match=r"has no frames.*shape \(0, 18, 8\)"):
        open_run(path, slab_geometry())


def test_a_run_that_was_never_written_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset(CXI_DATA, (10**6, 18, 8), np.uint16, chunks=(1, 18, 8))
    with pytest.raises(RunError, match=r"was never written"):
        open_run(path, slab_geometry())


def test_a_missing_data_set_lists_what_there_is(path: Path) -> None:
    write_slab_run(path, data_path="/other/images")
    with pytest.raises(RunError, match=r"no such data set.*/entry_1/data_1/data.*/other/images"):
        open_run(path, slab_geometry())


def test_a_detector_of_another_shape_names_the_panels(path: Path) -> None:
    write_run(path, np.zeros((2, 12, 8), np.uint16))
    with pytest.raises(
        RunError, match=r"panels lie outside.*m2 needs 18×8.*found 12×8.*geometry of this detector"
    ):
        open_run(path, slab_geometry())


def test_another_number_of_dimensions_is_told(path: Path) -> None:
    write_run(path, random_stack(2)[None])
    with pytest.raises(RunError, match=r"expected 3 \(%, ss, fs\), found 5"):
        open_run(path, slab_geometry())


@pytest.mark.parametrize("content", [np.array([[b"a", b"b"]] * 3), np.zeros((2, 3, 4), [("a", "i4")])])
def test_frames_that_are_not_numbers_are_refused(path: Path, content: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file[CXI_DATA] = content
    with pytest.raises(RunError, match=r"not numeric"):
        open_run(path, slab_geometry())


def test_a_group_is_no_data_set(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group(CXI_DATA)
    with pytest.raises(RunError, match=r"not a data set"):
        open_run(path, slab_geometry())


def test_every_problem_is_told_at_once(path: Path) -> None:
    write_slab_run(path, values={"/energies": np.array([9000.0, 9001.0])})
    text = (
        slab_geometry("mask0_data = /nowhere\n")
        .text.replace("9500 eV", "/energies")
        .replace("0.1 m", "/clen m")
    )
    with pytest.raises(
        RunError, match=r"3 problems: .*/energies does not fit.*no such data set, found /clen.*found /nowhere"
    ):
        open_run(path, parse_geometry(text))


def test_energies_of_another_number_than_frames_are_refused(path: Path) -> None:
    write_slab_run(path, values={"/energies": np.array([9000.0, 9000.0])})
    geometry = parse_geometry(slab_geometry().text.replace("9500 eV", "/energies"))
    with pytest.raises(RunError, match=r"/energies does not fit, expected 1 or 4 numbers"):
        open_run(path, geometry)


def test_a_mask_of_the_other_polarity_is_doubted_and_inverted_if_wished(path: Path) -> None:
    mask = np.ones((N_PANELS * HEIGHT, WIDTH), np.uint8)
    mask[2, 3] = 0
    write_slab_run(path, mask=mask)
    for geometry in (slab_geometry(), slab_geometry("mask0_data = /entry_1/data_1/mask\n")):
        with open_run(path, geometry) as run:
            assert run.bad_pixels.mean() > 0.9
            assert any("is 1 good here? Then invert it: --invert-mask" in doubt for doubt in run.doubts)
        with open_run(path, geometry, invert_masks=True) as run:
            assert np.argwhere(run.bad_pixels).tolist() == [[0, 2, 3]]
            assert any("was inverted" in doubt for doubt in run.doubts)


def test_a_mask_of_ones_leaves_no_pixel_and_asks_whether_they_are_good(path: Path) -> None:
    write_slab_run(path, mask=np.ones((N_PANELS * HEIGHT, WIDTH), np.uint8))
    with pytest.raises(RunError, match=r"every pixel is bad.*Is 1 good here\?.*--invert-mask"):
        open_run(path, slab_geometry())
    with open_run(path, slab_geometry(), invert_masks=True) as run:
        assert not run.bad_pixels.any()


def test_a_mask_of_less_than_half_is_never_inverted(path: Path) -> None:
    mask = np.zeros((N_PANELS * HEIGHT, WIDTH), np.uint8)
    mask[2, 3] = 1
    write_slab_run(path, mask=mask)
    with open_run(path, slab_geometry(), invert_masks=True) as run:
        assert np.argwhere(run.bad_pixels).tolist() == [[0, 2, 3]]
        assert not run.doubts


def test_a_damaged_chunk_names_its_frames(path: Path) -> None:
    write_slab_run(path)
    with h5py.File(path) as file:
        info = file[CXI_DATA].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    path.write_bytes(content)
    with open_run(path, slab_geometry()) as run:
        run.read(0, 2)
        with pytest.raises(RunError, match=r"frames 2 to 2 cannot be read.*damaged"):
            run.read(2, 3)


def test_a_bad_geometry_is_named_first(path: Path, tmp_path: Path) -> None:
    write_slab_run(path)
    with pytest.raises(GeometryError, match=r"no such geometry file"):
        open_run(path, tmp_path / "none.geom")


def test_links_inside_the_folder_are_followed(tmp_path: Path, path: Path) -> None:
    stack = write_slab_run(tmp_path / "data.h5")
    with h5py.File(path, "w") as file:
        file["/linked"] = h5py.ExternalLink("data.h5", "/entry_1")
        file[CXI_DATA] = h5py.SoftLink("/linked/data_1/data")
    with open_run(path, slab_geometry()) as run:
        assert np.array_equal(run.read(0, 4), stack)
        assert run.info.size_bytes > path.stat().st_size


@pytest.mark.parametrize("absolute", [True, False])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, absolute: bool) -> None:
    (tmp_path / "raw").mkdir()
    write_slab_run(tmp_path / "secret.h5")
    path = tmp_path / "raw" / "run.cxi"
    name = str(tmp_path / "secret.h5") if absolute else "../secret.h5"
    with h5py.File(path, "w") as file:
        file[CXI_DATA] = h5py.ExternalLink(name, CXI_DATA)
    with pytest.raises(RunError, match=r"a link leaves the allowed folder.*secret.h5"):
        open_run(path, slab_geometry())
    with open_run(path, slab_geometry(), root=tmp_path) as run:
        assert run.n_frames == 4


def test_virtual_sources_and_external_storage_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write_slab_run(tmp_path / "secret.h5")
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 18 * 8 * 2))
    path = tmp_path / "raw" / "run.cxi"
    layout = h5py.VirtualLayout((4, 18, 8), np.uint16)
    layout[:] = h5py.VirtualSource("../secret.h5", CXI_DATA, (4, 18, 8))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("/virtual", layout)
        file.create_dataset(
            "/external", (4, 18, 8), np.uint16, external=[("../secret.bin", 0, 4 * 18 * 8 * 2)]
        )
    for name in ("/virtual", "/external"):
        with pytest.raises(RunError, match=r"a link leaves the allowed folder"):
            open_run(path, slab_geometry(), data_path=name)


def test_links_in_a_circle_end(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["/a"] = h5py.SoftLink("/b")
        file["/b"] = h5py.SoftLink("/a")
        file["/loop"] = h5py.ExternalLink(path.name, "/loop")
    for name in ("/a", "/loop"):
        with pytest.raises(RunError, match=r"links go in a circle"):
            open_run(path, data_path=name)


def test_a_linked_file_that_is_missing_is_named(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file[CXI_DATA] = h5py.ExternalLink("gone.h5", CXI_DATA)
    with pytest.raises(RunError, match=r"a linked file is missing, found gone.h5"):
        open_run(path, slab_geometry())


def test_a_mask_per_frame_counts_where_every_frame_agrees(path: Path) -> None:
    mask = np.zeros((4, N_PANELS * HEIGHT, WIDTH), np.uint8)
    mask[:, 1, 2] = 1
    mask[2, 3, 4] = 1
    write_slab_run(path, mask=mask)
    for geometry in (slab_geometry(), None):
        with open_run(path, geometry) as run:
            assert np.flatnonzero(run.bad_pixels).tolist() == [1 * WIDTH + 2]


def test_a_directory_without_extra_data_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "extra_data", None)
    (tmp_path / "RAW-R0001-AGIPD00-S00000.h5").write_bytes(b"")
    with pytest.raises(RunError, match=r"EuXFEL runs need extra_data.*peaknet-pipeline\[euxfel\]"):
        open_run(tmp_path)
