"""What a command is going to write, checked before it begins: no input is lost, no stranger's file, and no work in vain."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.atomic import temporary_prefix
from peaknet_pipeline.errors import OutputError, PeaknetError
from peaknet_pipeline.records import parse_json
from peaknet_pipeline.runs.listing import SUFFIXES as RUN_SUFFIXES
from peaknet_pipeline.store.origin import told_inside

MAX_INPUT_FILES = 10_000
"""Files that inputs lead to which are compared at most: more are met in no real run."""


@dataclass(frozen=True)
class Output:
    """A file that a command writes.

    Attributes
    ----------
    path : Path
    suffixes : tuple of str
        Endings that go with what is written; any where there are none.
    leader : Path or None
        File whose maker counts for this one too: what indexamajig leaves beside a list says nothing about itself.
    in_folder : Path or None
        Folder that the command makes for it where there is none.
    made_by : str
        Another command that makes this file, and whose file is replaced too.

    """

    path: Path
    suffixes: tuple[str, ...] = ()
    leader: Path | None = None
    in_folder: Path | None = None
    made_by: str = ""


def check_outputs(
    outputs: Sequence[Output], inputs: Iterable[Path], *, command: str, force: bool = False
) -> None:
    """Refuse outputs that would destroy an input or cannot be written, before any work.

    Parameters
    ----------
    outputs : sequence of Output
        Everything that the command writes, files beside the named ones included.
    inputs : iterable of Path
        Everything that it was given; those that don't exist are left to whoever reads them. The files that an input leads
        to (a table's run, a run's linked files, a geometry's masks) count as inputs.
    command : str
        Such as ``peaknet find``: an existing file that says it was made by this command is replaced.
    force : bool
        Replace any existing file that is no input.

    Raises
    ------
    OutputError
        The first output that is refused, and why.

    """
    given = [path for path in inputs if path.exists()]
    for number, output in enumerate(outputs):
        _check_not_input(output.path, given)
        _check_distinct(output.path, [other.path for other in outputs[:number]])
        _check_suffix(output)
        _check_folder(output)
    for output in outputs:
        _check_replaceable(output, command, force=force)


def files_behind(path: Path) -> Iterator[Path]:
    """Yield the files that an input leads to: those that a table was made from, a geometry's masks, a run's linked files.

    What cannot be read leads nowhere: whoever reads it for its content says what is wrong with it.
    """
    readers = {".parquet": _behind_table, ".geom": _behind_geometry}
    reader = readers.get(path.suffix.lower(), _behind_run)
    if path.is_file():
        with contextlib.suppress(PeaknetError, OSError, ValueError):
            yield from reader(path)


def _check_not_input(path: Path, inputs: Sequence[Path]) -> None:
    for given in inputs:
        if (
            given.is_dir()
            and path.suffix.lower() in RUN_SUFFIXES
            and path.resolve().parent == given.resolve()
        ):
            raise OutputError(
                "the output would lie among the input's files and be read as one of them",
                where=path,
                found=f"input folder {given}",
                remedy="Choose another folder.",
            )
    if not path.exists():
        return
    for given in _all_behind(inputs):
        if _is_same_file(path, given):
            raise OutputError(
                "the output is also an input, which would be lost",
                where=path,
                found=f"input {given}",
                remedy="Choose another name.",
            )


def _all_behind(inputs: Sequence[Path]) -> Iterator[Path]:
    """Yield inputs and what they lead to, each once."""
    seen: set[Path] = set()
    waiting = list(inputs)
    while waiting and len(seen) < MAX_INPUT_FILES:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        yield path
        waiting += files_behind(path)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _check_distinct(path: Path, others: Sequence[Path]) -> None:
    if any(path.resolve() == other.resolve() or _is_same_file(path, other) for other in others):
        raise OutputError(
            "two outputs of the command have this name, and one would replace the other",
            where=path,
            remedy="Choose another name for one of them.",
        )


def _check_suffix(output: Output) -> None:
    if output.suffixes and output.path.suffix.lower() not in output.suffixes:
        raise OutputError(
            "the name's ending does not go with what is written",
            where=output.path,
            expected=" or ".join(output.suffixes),
            found=output.path.suffix or "no ending",
            remedy="Choose another name.",
        )


def _check_folder(output: Output) -> None:
    """Make and remove a file, as writing will: rights, read-only and full disks, and too long names show then."""
    folder = output.path.parent
    if output.in_folder is not None and not folder.exists():
        folder = output.in_folder.absolute().parent
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise OutputError(what, where=folder, remedy="Make it first, or write to another one.")
    try:
        prefix = temporary_prefix(output.path)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=prefix, suffix=".tmp"):
            pass
    except OSError as error:
        remedy = "Choose a shorter name." if error.errno == errno.ENAMETOOLONG else "Write to another folder."
        raise OutputError(
            f"cannot be written to ({os.strerror(error.errno or 0)})", where=folder, remedy=remedy
        ) from error


def _check_replaceable(output: Output, command: str, *, force: bool) -> None:
    path = output.path
    if not path.exists():
        return
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise OutputError(f"is {kind}", where=path, expected="the name of a file", remedy="Choose another.")
    if force:
        return
    leader = output.leader if output.leader is not None and output.leader.is_file() else path
    maker = told_inside(leader).get("stage")
    if maker not in (command, "peaknet", output.made_by or command):
        raise OutputError(
            f"exists and was not made by `{command}`",
            where=path,
            found=f"made by `{maker}`" if maker else "a file that doesn't say who made it",
            remedy="Choose another name, or replace it with --force.",
        )


def _behind_table(path: Path) -> Iterator[Path]:
    from peaknet_pipeline.tables import read_table_metadata

    metadata = read_table_metadata(path)
    if "source" in metadata:
        yield Path(metadata["source"])
    yield from map(Path, parse_json(metadata.get("inputs", "{}"), where=path, error=OutputError))


def _behind_geometry(path: Path) -> Iterator[Path]:
    from peaknet_pipeline.geometry.crystfel import read_geometry
    from peaknet_pipeline.geometry.slabs import mask_layers

    for layer in mask_layers(read_geometry(path)):
        if layer.file is not None:
            yield path.parent / layer.file


def _behind_run(path: Path) -> Iterator[Path]:
    from peaknet_pipeline.hdf5.files import LinkedFiles

    with LinkedFiles(path) as files:
        for _ in files.datasets():
            pass
        yield from files.files[1:]
