"""The second look at a run: what another program simulated comes back right where the list of peaks holds nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from peaknet_pipeline.errors import GeometryError, ParameterError, RunError
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams, predict_reflections, table_axes
from peaknet_pipeline.indexing.second_look.acceptance import make_control
from peaknet_pipeline.indexing.second_look.diffraction_model import DiffractionModel
from peaknet_pipeline.indexing.second_look.effort import is_worth_a_search, quiet_counts
from peaknet_pipeline.indexing.second_look.flat_detector import make_flat_detector
from peaknet_pipeline.indexing.second_look.run_model import RunModel
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.indexing.second_look.weak_frame import FoundLattice
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import INDEX, PEAKS, SECOND_LOOK
from peaknet_pipeline.steps.index_file import index_command
from peaknet_pipeline.steps.look_again import look_again
from peaknet_pipeline.steps.second_look_tables import (
    SecondLookOutcome,
    best_lattices,
    frames_left,
    join_second_look,
    lattice_rows,
    make_second_look_table,
    second_look_rates,
)
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import UnitCell

FRAMES = 10
FEW = RunSecondLookParams(n_controls=4, max_pairs=2500, n_refined=300, spot_sigma=0.8)


NO_MODEL = RunModel(
    UnitCell(50.0, 60.0, 70.0, 90.0, 90.0, 90.0, "orthorhombic", "P", "*"),
    DiffractionModel(),
    np.zeros(2),
    0,
    0.0,
)


class Thinned:
    """The first frames of a run with every photon kept with the same chance; the rest is the run's own."""

    def __init__(self, run: Any, share: float, n_frames: int) -> None:
        self._run, self.n_frames = run, n_frames
        frames = run.read(0, n_frames)
        self._frames = np.random.default_rng(9).binomial(frames.astype(np.int64), share).astype(frames.dtype)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._run, name)
        return value[: self.n_frames] if name == "photon_energy_ev" else value

    def read(self, start: int, stop: int) -> Any:
        return self._frames[start:stop]


@contextmanager
def thinned(folder: Path, share: float) -> Iterator[Any]:
    with open_run(folder / "sim1k.cxi", folder / "sim1k.geom") as run:
        yield Thinned(run, share, FRAMES)


def blank_run(folder: Path, energies_ev: list[float]) -> Any:
    """A run of three frames without a photon, on one panel of 64 × 64 pixels."""
    with h5py.File(folder / "r0001.h5", "w") as file:
        file["data"], file["energy"] = np.zeros((3, 64, 64), dtype=np.float32), energies_ev
    (folder / "blank.geom").write_text(
        "clen = 0.1 m\nadu_per_photon = 1\nres = 10000\ndata = /data\ndim0 = %\ndim1 = ss\ndim2 = fs\n"
        "photon_energy = /energy eV\np0/min_fs = 0\np0/max_fs = 63\np0/min_ss = 0\np0/max_ss = 63\n"
        "p0/fs = +1.0x\np0/ss = +1.0y\np0/corner_x = -32\np0/corner_y = -32\n"
    )
    return open_run(folder / "r0001.h5", folder / "blank.geom")


def true_axes(folder: Path) -> dict[int, list[np.ndarray]]:
    with h5py.File(folder / "sim1k.cxi") as file:
        axes, counts = file["/truth/recip_invm"][()] * 1e-10, file["/truth/n_lattices"][()]
    return {frame: [axes[frame, k].T for k in range(counts[frame])] for frame in range(FRAMES)}


def test_a_fiftieth_of_the_photons_is_enough_and_no_lattice_is_wrong(realdata: Path) -> None:
    folder = realdata / "crystfel_simulated"
    cell, truth = read_cell(folder / "lyso.cell"), true_axes(folder)
    with thinned(folder, 0.02) as run:
        nothing = index_peaks(
            empty_table(PEAKS), geometry=run.geometry, photon_energy_ev=9500.0, cell=cell,
            params=IndexParams(device="cpu"),
        )  # fmt: skip
        look = look_again(run, nothing, bad_pixels=run.bad_pixels, cell=cell, params=FEW)
    hits = {frame for frame, axes in truth.items() if axes}
    found = set(look.table["frame"])
    assert len(found & hits) >= len(hits) - 2
    for frame, axes in zip(look.table["frame"], table_axes(look.table), strict=True):
        off = [misorientation_deg(axes, one, cell) for one in truth[int(frame)]]
        assert min(off, default=90.0) < 0.3, f"frame {frame}"
    assert (look.table["score"] >= look.control.bar).all()
    assert look.control.n_copies == FEW.n_controls
    assert look.control.highest < look.control.bar


def test_lattices_of_the_list_are_verified_and_tell_the_cell(realdata: Path) -> None:
    folder = realdata / "crystfel_simulated"
    truth = true_axes(folder)
    cell = read_cell(folder / "lyso.cell")
    frames = [frame for frame, axes in truth.items() if axes][:6]
    table = empty_table(INDEX)
    rows = {name: [] for name in table.columns} | {"frame": frames, "lattice": [0] * 6}
    flat = np.stack([truth[frame][0].T.reshape(9) for frame in frames])
    rows |= {f"{a}star_{x}": flat[:, 3 * i + j] for i, a in enumerate("abc") for j, x in enumerate("xyz")}
    rows |= {"n_peaks": [20] * 6, "n_explained": [20] * 6, "residual": [0.001] * 6}
    rows |= {"shift_x_mm": [np.nan] * 6, "shift_y_mm": [np.nan] * 6}
    known = table.__class__(rows)
    wrong_cell = read_cell(folder / "lyso.cell").__class__(
        **{**vars(cell), "a": cell.a * 1.006, "b": cell.b * 1.006}
    )
    with thinned(folder, 0.3) as run:
        look = look_again(
            run,
            known,
            bad_pixels=run.bad_pixels,
            cell=wrong_cell,
            params=FEW,
            frames=np.array([], dtype=np.int64),
        )
    listed = look.table[look.table["origin"] == "list"]
    assert listed["frame"].tolist() == frames
    assert (listed["score"] > 100.0).all()
    assert look.model.cell.a == pytest.approx(cell.a, rel=5e-4)
    assert look.model.n_frames == 6
    assert look.control.n_copies == FEW.n_controls, "further lattices of listed frames need a control, too"


def test_a_frame_is_worth_a_search_by_what_quiet_frames_show() -> None:
    quiet = np.random.default_rng(0).poisson([60, 11, 2, 0.3, 0.0], size=(40, 5))
    noise = np.array([[58, 10, 1, 0, 0]])
    expected = quiet_counts(quiet, noise)
    assert np.mean([is_worth_a_search(row, expected) for row in quiet]) < 0.25
    assert is_worth_a_search(np.array([62, 16, 9, 6, 2]), expected)
    hits = quiet + np.array([80, 60, 50, 40, 30])
    assert is_worth_a_search(hits[0], quiet_counts(hits, noise)), "a run of hits has no quiet frames to show"


def test_frames_left_are_those_that_one_finder_misses() -> None:
    empty = empty_table(INDEX).reindex(range(3))
    one = empty.assign(frame=[0, 1, 2], n_explained=9)
    two = empty.assign(frame=[1, 2, 4], n_explained=12)
    assert frames_left([one, two], 6).tolist() == [0, 3, 4, 5]
    assert best_lattices([one, two])["frame"].tolist() == [0, 1, 2, 4]
    assert best_lattices([one, two])["n_explained"].tolist() == [9, 12, 12, 12]


def test_rates_count_each_finders_own_gain() -> None:
    table = (
        empty_table(SECOND_LOOK)
        .reindex(range(4))
        .assign(frame=[1, 2, 2, 5], origin=["list"] + 3 * ["second look"])
    )
    control = make_control([3.0, 12.0], n_orientations=1e7)
    look = SecondLookOutcome(table, control, NO_MODEL, n_searched=7, n_left=9, spot_sigma=0.8)
    listed = empty_table(INDEX).reindex(range(2)).assign(frame=[1, 2])
    row = second_look_rates(
        look, listed, experiment="e", run="e-r0001", finder="classical", n_frames=20
    ).iloc[0]
    assert (row["indexed"], row["second_look_indexed"], row["second_look_lattices"]) == (2, 1, 3)
    assert row["indexing_yield"] == pytest.approx(0.1)
    assert row["second_look_yield"] == pytest.approx(0.15)
    assert row["second_look_bar"] == pytest.approx(control.bar)
    assert row["second_look_false_limit"] == pytest.approx(1 - 0.05**0.5)


def test_runs_without_a_photon_energy_and_lattices_of_other_runs_are_refused(tmp_path: Path) -> None:
    other = empty_table(INDEX).reindex(range(1)).assign(frame=[7])
    for energy, lattices, message in (
        (np.nan, empty_table(INDEX), "no frame has both a photon energy and a camera length.*3 frames"),
        (9500.0, other, "no such frames"),
    ):
        with blank_run(tmp_path, [energy] * 3) as run, pytest.raises(RunError, match=message):
            look_again(run, lattices, bad_pixels=run.bad_pixels, cell=NO_MODEL.cell, params=FEW)


def test_a_listed_lattice_of_a_frame_without_energy_is_left_out(tmp_path: Path) -> None:
    axes = dict.fromkeys((f"{a}star_{x}" for a in "abc" for x in "xyz"), 0.0)
    listed = empty_table(INDEX).reindex(range(1)).assign(frame=[0], **axes)
    with blank_run(tmp_path, [np.nan, 9500.0, 9500.0]) as run:
        look = look_again(run, listed, bad_pixels=run.bad_pixels, cell=NO_MODEL.cell, params=FEW)
    assert look.table.empty
    assert (look.n_left, look.model.n_frames, look.spot_sigma) == (2, 0, FEW.spot_sigma)


def test_a_setting_of_a_second_look_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    names = {name: tmp_path / name for name in ("geometry", "cell", "out")}
    with pytest.raises(ParameterError, match="Add --second-look FILE"):
        index_command(
            tmp_path / "peaks.parquet",
            engine="lattice",
            settings=["second_look.n_controls=9"],
            stream=None,
            **names,
        )


def second_look_of(shift: tuple[float, float], geometry: Any) -> Any:
    """A table of one lattice of the second look, 300 Å cubic, whose pattern lies ``shift`` cells further in x and y."""
    flat = make_flat_detector(geometry, np.zeros((1, 64, 64), dtype=np.bool_))
    axes = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix() / 300.0
    rows = lattice_rows(0, [FoundLattice(axes, 50.0, np.array(shift), 30)], "second look")
    return make_second_look_table([rows], flat, geometry)


def test_lattices_of_the_second_look_predict_where_it_saw_them(tmp_path: Path) -> None:
    cell = UnitCell(300.0, 300.0, 300.0, 90.0, 90.0, 90.0, "cubic", "P", "*")
    params = PredictParams(profile_radius=0.0009, max_inv_d=0.05)
    with blank_run(tmp_path, [9500.0]) as run:
        predicted = [
            predict_reflections(
                join_second_look(empty_table(INDEX), second_look_of(shift, run.geometry)),
                cell=cell, geometry=run.geometry, photon_energy_ev=9500.0, params=params,
            ).set_index(["h", "k", "l"])
            for shift in ((0.0, 0.0), (3.0, -2.0))
        ]  # fmt: skip
    both = predicted[0].join(predicted[1].add_suffix("_moved"), how="inner")
    assert len(both) >= 5
    np.testing.assert_allclose(both["fs_moved"] - both["fs"], 3.0, atol=0.02)
    np.testing.assert_allclose(both["ss_moved"] - both["ss"], -2.0, atol=0.02)


def test_the_lists_lattices_stay_and_those_of_the_second_look_follow(tmp_path: Path) -> None:
    axes = dict.fromkeys((f"{a}star_{x}" for a in "abc" for x in "xyz"), 0.01)
    listed = empty_table(INDEX).reindex(range(2)).assign(frame=[0, 2], lattice=0, n_explained=9, **axes)
    with blank_run(tmp_path, [9500.0]) as run:
        both = join_second_look(listed, second_look_of((0.0, 0.0), run.geometry))
    assert both["frame"].tolist() == [0, 0, 2]
    assert both["lattice"].tolist() == [0, 1, 0]
    assert both["n_explained"].tolist() == [9, 0, 9]


def test_a_camera_length_in_another_unit_is_an_error_and_no_huge_detector(tmp_path: Path) -> None:
    with blank_run(tmp_path, [9500.0]) as run:
        near = replace(run.geometry, panels=(replace(run.geometry.panels[0], clen_m=1e-4),))
    with pytest.raises(GeometryError, match=r"far too near.*found 0\.0001 m.*Check clen and its unit"):
        make_flat_detector(near, np.zeros((1, 64, 64), dtype=np.bool_))


def test_lattices_of_a_second_look_go_into_a_stream_only_if_there_are_both(tmp_path: Path) -> None:
    names = {name: tmp_path / name for name in ("geometry", "cell", "out")}
    with pytest.raises(ParameterError, match="--second-look FILE, and --stream FILE"):
        index_command(
            tmp_path / "peaks.parquet",
            engine="lattice",
            settings=[],
            stream=None,
            with_second_look=True,
            **names,
        )
