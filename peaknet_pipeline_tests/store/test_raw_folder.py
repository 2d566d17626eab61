"""What lies in an experiment's folder: runs of every name, in their parts, and a reason for all that is not taken."""

import os

import pytest

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.provenance import input_digest
from peaknet_pipeline.store.incoming import find_incoming_runs
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_folder import read_raw_folder
from peaknet_pipeline.store.raw_root import (
    check_runs_have_files,
    find_run_files,
    format_not_taken,
    read_raw_root,
    stamp_of,
)


@pytest.fixture
def folder(tmp_path):
    """An experiment's empty folder."""
    folder = tmp_path / "raw" / "lyso"
    folder.mkdir(parents=True)
    return folder


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"frames")


def names_of(raw):
    """Return the names of the files of each run."""
    return {number: [path.name for path in files] for number, files in raw.runs.items()}


def reasons_of(raw):
    """Return the reason for each entry that is left out or refused, by name."""
    return {path.name: reason for path, reason in [*raw.left_out, *raw.refused.values()]}


def test_runs_of_several_naming_schemes_lie_side_by_side(folder):
    put(
        folder,
        "r0001.h5",
        "thau_13_master.h5",
        "r0012-lyso_3.h5",
        "cxilx0000_0016.h5",
        "run 5.h5",
        "notes.txt",
    )
    put(
        folder,
        "thau_13_data_000001.h5",
        "thau_13_000002.h5",
        "größe_r0099.cxi",
        "r0042/CORR-R0042-AGIPD00-S00000.h5",
    )
    raw = read_raw_folder(folder)
    assert {number: files[0] for number, files in names_of(raw).items()} == {
        1: "r0001.h5", 13: "thau_13_master.h5", 12: "r0012-lyso_3.h5", 16: "cxilx0000_0016.h5", 5: "run 5.h5",
        99: "größe_r0099.cxi", 42: "r0042",
    }  # fmt: skip
    assert reasons_of(raw) == {}


def test_parts_are_one_run_in_the_order_of_their_numbers(folder):
    put(
        folder,
        *(f"run372134-{k}.h5" for k in (10, 9, 8, 2, 1, 0, 3, 4, 5, 6, 7)),
        "r0042-class3.cxi",
        "r0042-class1.cxi",
    )
    assert names_of(read_raw_folder(folder)) == {
        372134: [f"run372134-{k}.h5" for k in range(11)],
        42: ["r0042-class1.cxi", "r0042-class3.cxi"],
    }


def test_a_part_that_is_missing_in_the_middle_refuses_the_run(folder):
    put(folder, "run7-0.h5", "run7-2.h5")
    raw = read_raw_folder(folder)
    assert raw.runs == {}
    assert raw.refused[7][1] == "run 7 lacks part 1 of 0 to 2"


def test_two_files_of_one_number_are_refused_by_both_names(folder):
    put(folder, "r0007.h5", "lyso_run7.cxi", "r0008-a.h5", "r0008-b.h5", "r0009.h5")
    raw = read_raw_folder(folder)
    assert names_of(raw) == {9: ["r0009.h5"]}
    for number, names in ((7, ("r0007.h5", "lyso_run7.cxi")), (8, ("r0008-a.h5", "r0008-b.h5"))):
        assert all(name in raw.refused[number][1] for name in names)
    with pytest.raises(RunError, match=r"run 7 has 2 raw files: lyso_run7\.cxi, r0007\.h5"):
        find_run_files(Store(folder.parent.parent), parse_key("lyso-r0007"))


def test_a_list_of_files_is_a_run_where_no_other_file_bears_its_number(folder):
    put(folder, "r0007.lst", "r0008.lst", "r0008.cxi", "r0009-a.lst", "r0009-b.lst")
    raw = read_raw_folder(folder)
    assert names_of(raw) == {7: ["r0007.lst"], 8: ["r0008.cxi"]}
    assert "a list beside the files of run 8" in reasons_of(raw)["r0008.lst"]
    assert "run 9 has 2 raw files" in reasons_of(raw)["r0009-a.lst"]


def test_what_bears_no_run_number_is_left_out_with_the_reason_and_settings_files_are_not_told(folder):
    put(
        folder,
        "lyso_a.h5",
        "thau_4_data_000001.h5",
        "dark_2.h5",
        "constants.h5",
        "run3_master.hdf5",
        "old/r0001.h5",
    )
    put(folder, "pixel_mask.h5", ".r0005.h5.Xa3", "plots/page.html")
    (folder / "experiment.yaml").write_text(
        "calibration_file: constants.h5\nmask: {mask_files: [pixel_mask.h5]}\n"
    )
    raw = read_raw_folder(folder)
    assert names_of(raw) == {3: ["run3_master.hdf5"]}
    told = reasons_of(raw)
    assert set(told) == {"lyso_a.h5", "thau_4_data_000001.h5", "dark_2.h5", "old"}
    assert "whose master thau_4_master.h5 isn't here" in told["thau_4_data_000001.h5"]
    assert "folder's name bears no run number" in told["old"]
    assert "under runs: in experiment.yaml" in told["lyso_a.h5"]


def test_the_settings_give_numbers_to_files_of_any_name_and_settle_what_is_ambiguous(folder):
    put(folder, "größe.h5", "first.h5", "second.h5", "r0007.h5", "old_r0007.h5", "deep/x.h5")
    (folder / "experiment.yaml").write_text(
        "runs:\n  3: gro\u0308ße.h5\n  4: [second.h5, first.h5]\n  7: r0007.h5\n  8: deep/x.h5\n"
    )
    raw = read_raw_folder(folder)
    assert names_of(raw) == {3: ["größe.h5"], 4: ["second.h5", "first.h5"], 7: ["r0007.h5"], 8: ["x.h5"]}
    assert reasons_of(raw) == {"old_r0007.h5": "experiment.yaml gives run 7 to r0007.h5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {x: a.h5}", "line 1: not a run number with its files"),
        ("runs:\n  1: a.h5\n  2: 5", "line 3: not a run number"),
        ("runs: {1: ../secret.h5}", "leads out of its folder"),
        ("runs: {1: /etc/passwd}", "leads out of its folder"),
        ("runs:\n  1: a.h5\n  2: a.h5", "line 3: a.h5 is given to two runs"),
        ("runs: [a.h5]", "section runs is not a mapping"),
        ("runs: {1: a.h5}\nruns: {2: a.h5}", "runs is given twice, found lines 1 and 2"),
        ("runs: &x [*x]", "alias"),
    ],
)
def test_a_mapping_that_is_none_makes_the_whole_folder_unusable_and_says_where(folder, text, message):
    put(folder, "a.h5")
    (folder / "experiment.yaml").write_text(text)
    assert message in read_raw_folder(folder).problem


def test_a_run_whose_given_file_is_not_there_is_refused(folder):
    (folder / "experiment.yaml").write_text("runs: {1: a.h5}")
    assert read_raw_folder(folder).refused[1][1] == "run 1: no such file"


@pytest.fixture
def crooked(folder):
    """A good run among entries of every crooked kind."""
    put(folder, "r0001.h5", "r0009/CORR-R0009-AGIPD00-S00000.h5")
    (folder / "r0002.h5").symlink_to("gone.h5")
    (folder / "r0003.h5").symlink_to("r0003.h5")
    os.mkfifo(folder / "r0004.h5")
    (folder / "r0005.h5").mkdir()
    (folder / "r0009" / "x.h5").symlink_to("gone")
    (folder.parent / "other").symlink_to("gone")
    (folder.parent / "loop").symlink_to("loop")
    (folder.parent / "bad name<b>").mkdir()
    put(folder.parent, "r0001.h5", "fine/r0001.h5")
    return Store(folder.parent.parent)


def test_each_crooked_entry_is_left_out_with_its_reason_and_all_others_go_on(crooked):
    raw = read_raw_root(crooked)
    assert set(raw.runs) == {"lyso-r0001", "fine-r0001", "lyso-r0009"}
    told = {path.name: reason for path, reason in raw.not_taken()}
    assert told["r0002.h5"] == "run 2: a link to gone.h5, which isn't there"
    assert told["r0003.h5"] == "run 3: a link that leads in a circle"
    assert told["r0004.h5"] == "run 4: a named pipe (FIFO) or device, not a file"
    assert "a folder with the name of a file" in told["r0005.h5"]
    assert told["other"] == "a link to gone, which isn't there"
    assert told["loop"] == "a link that leads in a circle"
    assert "not a run key" in told["bad name<b>"]
    assert "lies in no experiment's folder" in told["r0001.h5"]
    assert len(told) == 8


def test_registering_asks_for_a_file(crooked):
    check_runs_have_files(crooked, ["lyso-r0001", "fine-r0001"])
    with pytest.raises(
        RunError, match=r"no raw file for lyso-r0002 \(r0002.h5: .*which isn't there\), lyso-r0099"
    ):
        check_runs_have_files(crooked, ["lyso-r0099", "lyso-r0002"])
    with pytest.raises(ParameterError, match="not a run key"):
        check_runs_have_files(crooked, ["nonsense"])


def test_entries_with_one_reason_are_told_together(folder):
    put(folder, *(f"scan{k}.h5" for k in range(25)))
    (line,) = format_not_taken(read_raw_folder(folder).left_out)
    assert line.startswith("25 not taken: lyso/scan0.h5, lyso/scan1.h5,")
    assert "lyso/scan19.h5 and 5 more: the name bears no run number." in line


def test_a_zarr_store_is_a_run_by_the_name_of_a_file_and_settles_with_its_chunks(folder):
    put(folder, "lyso_13.zarr/.zarray", "lyso_13.zarr/0.0.0")
    (folder / "lyso_13.zarr" / "deep").mkdir()
    put(folder / "lyso_13.zarr" / "deep", "1.0.0")
    store = Store(folder.parent.parent)
    assert names_of(read_raw_folder(folder)) == {13: ["lyso_13.zarr"]}
    assert find_incoming_runs(store, known=(), settle_s=0.0).complete == ["lyso-r0013"]
    before = stamp_of([folder / "lyso_13.zarr"]), input_digest(folder / "lyso_13.zarr")
    (folder / "lyso_13.zarr" / "deep" / "1.0.0").write_bytes(b"other frames")
    after = stamp_of([folder / "lyso_13.zarr"]), input_digest(folder / "lyso_13.zarr")
    assert before[0] != after[0]
    assert before[1] != after[1]
