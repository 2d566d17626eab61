"""No command loses an input or a stranger's file, whichever option names it: one claim over the whole table of commands."""

import os
from pathlib import Path

import click
import h5py
import numpy as np
import pytest

from peaknet_pipeline.cli import SECTIONS, main
from peaknet_pipeline.commands.files import FileCommand, Input, OutputFile, OutputFolder, Source, command
from peaknet_pipeline.errors import OutputError
from peaknet_pipeline.runs.masks import write_mask
from peaknet_pipeline.store.outputs import Output, check_outputs

COMMANDS = [one for commands in SECTIONS.values() for one in commands]
ALL = COMMANDS + [sub for one in COMMANDS if isinstance(one, click.Group) for sub in one.commands.values()]
READERS = Input | Source
WRITES = [
    (one, option) for one in ALL for option in one.params
    if isinstance(option.type, OutputFile) and not isinstance(option.type, OutputFolder)
]  # fmt: skip
BOTH = [(one, out, given) for one, out in WRITES for given in one.params if isinstance(given.type, READERS)]
FOREIGN = b"years of work"


def name_of(case):
    return " ".join(str(part.name) for part in case)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def work(monkeypatch):
    """Replace the work of all commands by a note of their names."""
    begun = []
    for one in {case[0].name: case[0] for case in WRITES}.values():
        monkeypatch.setattr(one, "callback", lambda name=one.name, **_: begun.append(name))
    return begun


def arguments(one, path_of):
    """Return a command line with every required option, and those in ``path_of``; files get right endings."""
    words = [one.name]
    for option in one.params:
        path = path_of.get(option.name)
        if path is None and not option.required:
            continue
        if path is None and isinstance(option.type, READERS):
            path = f"in-{option.name}"
            Path(path).write_bytes(b"input")
        elif path is None and isinstance(option.type, OutputFile):
            path = f"new-{option.name}{option.type.suffixes[0]}"
        elif path is None:
            path = "any words"
        words += [str(path)] if isinstance(option, click.Argument) else [option.opts[0], str(path)]
    return words


def status(words, capsys):
    """Run and return exit status and stderr."""
    try:
        main(words)
    except SystemExit as stop:
        return int(stop.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


def test_every_path_of_every_command_is_declared_as_read_or_written():
    for one in ALL:
        assert isinstance(one, FileCommand | click.Group) or one.name in ("use", "rollback")
        for option in one.params:
            is_root = option.name in ("data", "roots")  # folders that hold inputs and outputs alike
            plain = type(option.type) is click.Path and not is_root
            assert not plain, f"{one.name} {option.name}: use Input, OutputFile or OutputFolder"


@pytest.mark.parametrize("case", BOTH, ids=name_of)
@pytest.mark.parametrize("way", ["same", "dotted", "linked", "hard"])
def test_an_output_that_is_an_input_is_refused_and_the_input_stays(case, way, work, capsys):
    one, out, given = case
    suffix = out.type.suffixes[0]
    victim = Path(f"victim{suffix}").absolute()
    victim.write_bytes(FOREIGN)
    target = {"same": victim, "dotted": f"./victim{suffix}", "linked": f"l{suffix}", "hard": f"h{suffix}"}[
        way
    ]
    if way == "linked":
        Path(target).symlink_to(victim)
    elif way == "hard":
        Path(target).hardlink_to(victim)
    words = arguments(one, {given.name: victim, out.name: target})
    for extra in ([], ["--force"]):
        code, err = status([*words, *extra], capsys)
        assert code == 2
        assert "also an input" in err
        assert err.count("\n") == 1
    assert victim.read_bytes() == FOREIGN
    assert work == []


@pytest.mark.parametrize("case", WRITES, ids=name_of)
def test_a_strangers_file_is_replaced_only_by_force(case, work, capsys):
    one, out = case
    path = f"theirs{out.type.suffixes[0]}"
    Path(path).write_bytes(FOREIGN)
    words = arguments(one, {out.name: path})
    code, err = status(words, capsys)
    assert code == 2
    assert "--force" in err
    assert work == []
    assert status([*words, "--force"], capsys)[0] == 0
    assert work == [one.name]


@pytest.mark.parametrize("case", WRITES, ids=name_of)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nowhere/out{}", "nowhere: no such folder"),
        ("file/out{}", "file: not a folder"),
        ("out.doc", "ending does not go with"),
        ("folder{}", "is a folder"),
        ("pipe{}", "is no regular file"),
        ("n" * 245 + "{}", "shorter name"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(case, path, expected, work, capsys):
    one, out = case
    suffix = out.type.suffixes[0]
    Path("file").touch()
    Path(f"folder{suffix}").mkdir()
    os.mkfifo(f"pipe{suffix}")
    code, err = status(arguments(one, {out.name: path.format(suffix)}), capsys)
    assert code == 2
    assert expected in err
    assert work == []


@pytest.mark.parametrize(
    ("name", "companion", "more"),
    [
        ("find", "mine.geom", {"cxi": "mine.cxi"}),
        ("stream", "mine.geom", {"cxi": "mine.cxi"}),
        ("index", "mine.geom", {"out": "mine.parquet", "engine": "indexamajig"}),
        ("index", "mine.stream", {"out": "mine.parquet", "engine": "indexamajig"}),
        ("index", "control/mine.log", {"out": "mine.parquet", "engine": "indexamajig"}),
    ],
)
def test_what_is_written_beside_an_output_is_protected_too(name, companion, more, work, capsys):
    (one,) = (c for c in COMMANDS if c.name == name)
    Path("control").mkdir()
    Path(companion).write_bytes(FOREIGN)
    code, err = status(arguments(one, more), capsys)
    assert (code, work) == (2, [])
    assert f"{companion}: exists" in err
    code, err = status([*arguments(one, more | {"geometry": companion}), "--force"], capsys)
    assert (code, work) == (2, [])
    assert f"{companion}: the output is also an input" in err


def test_two_outputs_of_one_name_are_refused(work, capsys):
    (index,) = (c for c in COMMANDS if c.name == "index")
    words = arguments(index, {"out": "a.parquet", "engine": "indexamajig", "stream": "a.stream"})
    code, err = status(words, capsys)
    assert (code, work) == (2, [])
    assert "a.stream: two outputs" in err


def test_a_file_that_a_setting_names_is_an_input(work, capsys):
    (mask,) = (c for c in COMMANDS if c.name == "mask")
    Path("m.h5").write_bytes(FOREIGN)
    words = [*arguments(mask, {"out": "m.h5"}), "--set", "mask_files=x.h5,m.h5", "--force"]
    assert "also an input" in status(words, capsys)[1]
    assert work == []


def test_a_new_command_is_covered_by_its_declaration(tmp_path):
    begun = []

    @command("copy")
    @click.argument("given", type=Input())
    @click.option("--out", type=OutputFile(".txt"))
    def copy(given, out):
        """Copy."""
        begun.append(out)

    (tmp_path / "a.txt").write_bytes(FOREIGN)
    for words in (["a.txt", "--out", "a.txt"], ["a.txt", "--out", "../a.png"]):
        with pytest.raises(OutputError):
            copy.main(words, standalone_mode=False)
    copy.main(["a.txt", "--out", "b.txt"], standalone_mode=False)
    assert len(begun) == 1


def test_the_files_behind_an_input_are_inputs(tmp_path):
    with h5py.File(tmp_path / "data_1.h5", "w") as file:
        file["x"] = np.zeros((2, 3))
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["x"] = h5py.ExternalLink("data_1.h5", "/x")
    (tmp_path / "m.h5").write_bytes(FOREIGN)
    (tmp_path / "d.geom").write_text(
        "photon_energy = 9000\nadu_per_photon = 1\nclen = 0.1\nres = 1e4\nmask_file = m.h5\nmask = /m\n"
        "dim0 = %\ndim1 = ss\ndim2 = fs\n"
        "mask_good = 0x0\nmask_bad = 0x1\ndata = /x\n"
        "p/min_fs = 0\np/max_fs = 2\np/min_ss = 0\np/max_ss = 1\np/corner_x = 0\np/corner_y = 0\np/fs = x\np/ss = y\n"
    )
    for name, given in (("data_1.h5", "master.h5"), ("m.h5", "d.geom")):
        with pytest.raises(OutputError, match="also an input"):
            check_outputs([Output(tmp_path / name)], [tmp_path / given], command="peaknet x", force=True)


def test_a_folder_that_is_read_takes_no_output_that_would_be_read(tmp_path):
    with pytest.raises(OutputError, match="be read as one of them"):
        check_outputs([Output(tmp_path / "new.cxi")], [tmp_path], command="peaknet stream", force=True)
    check_outputs([Output(tmp_path / "new.parquet")], [tmp_path], command="peaknet stream")


def test_a_command_replaces_what_it_made_and_nothing_else(tmp_path):
    mask = tmp_path / "mask.h5"
    write_mask(np.zeros((1, 2, 3), bool), mask, provenance={"stage": "peaknet mask"})
    check_outputs([Output(mask)], [], command="peaknet mask")
    with pytest.raises(OutputError, match=r"not made by `peaknet find`.*made by `peaknet mask`.*--force"):
        check_outputs([Output(mask)], [], command="peaknet find")


def test_a_full_disk_or_a_forbidden_folder_is_told_before_the_work(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        check_outputs([Output(tmp_path / "a.parquet")], [], command="peaknet find")
