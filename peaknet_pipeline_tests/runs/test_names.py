"""What names of raw files say: the field's own ways of naming runs are read, ambiguous ones are not guessed at."""

from pathlib import Path

import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.names import (
    files_of_run,
    is_euxfel_file,
    master_of,
    natural_order,
    read_run_name,
)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("r0001.h5", 1),
        ("R0013.CXI", 13),
        ("run_13.hdf5", 13),
        ("run 5.h5", 5),
        ("lyso_run13.cxi", 13),
        ("Thaumatin-Größe 3_r0012.h5", 12),
        ("r0012-lyso_3.h5", 12),
        ("r0012_lyso 20 °C.h5", 12),
        ("cxilx0000-r0016.h5", 16),
        ("r0042-class1-lyso.cxi", 42),
        ("cxilx0000_0016.h5", 16),
        ("run372134-0.h5", 372134),
        ("run372134-light.h5", 372134),
        ("p000000_r0045_vds.cxi", 45),
        ("run_0013.JF07T32V02.h5", 13),
        ("lyso_13_master.h5", 13),
        ("lyso_2_13_master.h5", 13),
        ("x-r7_master.h5", 7),
        ("lyso_0_master.h5", 0),
        ("20240131_lyso_0016.h5", 16),
        ("蛋白_0007.h5", 7),
        ("r0013.psana", 13),
        ("r0042", 42),
    ],
)
def test_the_fields_names_of_runs_are_read(name, number):
    assert read_run_name(Path(name)).number == number


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes.h5", "bears no run number"),
        ("detector12.h5", "bears no run number"),
        ("r2d2.h5", "bears no run number"),
        ("0042.h5", "bears no run number"),
        ("lyso_1234567.h5", "bears no run number"),
        ("r0012_run13.h5", "bears 2 run numbers, 12, 13"),
        ("lyso_20240131.h5", "bears no run number"),
        ("lyso_2024-01-31.h5", "ends in a date"),
        ("lyso_3_0016.h5", "ends in several numbers"),
        ("dark_12.h5", "says 'dark'"),
        ("pixel_mask_3.h5", "says 'mask'"),
        ("r0012-detector0-class1-sum.h5", "says 'sum'"),
        ("r0012_peaks.cxi", "says 'peaks'"),
    ],
)
def test_what_is_no_name_of_a_run_is_told_with_the_reason(name, reason):
    with pytest.raises(RunError, match=reason):
        read_run_name(Path(name))


def test_parts_of_one_run_share_a_series_and_other_files_of_its_number_do_not():
    first, tenth = read_run_name(Path("run7-0.h5")), read_run_name(Path("run7-10.h5"))
    assert (first.part, tenth.part) == (0, 10)
    assert first.series == tenth.series
    assert not first.has_gaps
    classes = [read_run_name(Path(f"r0042-class{k}-lyso.cxi")) for k in (1, 3)]
    assert classes[0].series == classes[1].series
    assert classes[0].has_gaps
    others = {read_run_name(Path(n)).series for n in ("run7.h5", "run7-0.cxi", "r7-0.h5", "run7-lyso_0.h5")}
    assert len(others | {first.series}) == 5


def test_data_files_belong_to_their_master():
    assert master_of(Path("raw/lyso_13_data_000002.h5")) == Path("raw/lyso_13_master.h5")
    assert master_of(Path("raw/lyso_13.h5")) is None


def test_a_folders_run_is_its_masters_or_its_files_in_natural_order(tmp_path):
    for name in ("p10.h5", "p2.h5", ".p1.h5", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in files_of_run(tmp_path)] == ["p2.h5", "p10.h5"]
    (tmp_path / "a_1_master.h5").write_bytes(b"x")
    (tmp_path / "a_1_data_000001.h5").write_bytes(b"x")
    assert [path.name for path in files_of_run(tmp_path)] == ["a_1_master.h5"]
    assert sorted(map(Path, ("a10b", "a9b", "b1")), key=natural_order) == [
        Path("a9b"),
        Path("a10b"),
        Path("b1"),
    ]


def test_files_of_european_xfel_are_known_by_their_names():
    assert is_euxfel_file(Path("CORR-R0042-AGIPD00-S00000.h5"))
    assert not is_euxfel_file(Path("lyso_13_master.h5"))
