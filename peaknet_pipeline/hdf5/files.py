"""Open HDF5 files and follow their links by hand, so that nothing outside the allowed folder is ever read."""

import contextlib
import itertools
import posixpath
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import h5py

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.storage import StorageCheck, address, check_group
from peaknet_pipeline.hdf5.trial import try_file

MAX_LINKS = 64
MAX_OBJECTS = 20_000
MAX_DEPTH = 12
ALLOW = "allow its folder: --root FOLDER of the commands, allowed_roots in experiment.yaml for the chain."
DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError)
"""What h5py raises when it meets a damaged file."""

T = TypeVar("T")


class LinkedFileMissingError(RunError):
    """A link names a file that isn't there."""


class LinkedFiles(contextlib.ExitStack):
    """One run file and the files that its links lead to, open for reading until the block ends.

    Parameters
    ----------
    path : Path
        The run's own file.
    root : Path, optional
        Folder that the file and its links may not leave; the run file's own folder by default.
    more_roots : sequence of Path
        Further folders that links may lead into, and the file itself, if it is a symbolic link.
    growing : bool
        Another process is writing the file in SWMR mode.

    Raises
    ------
    RunError
        The file is missing, empty, truncated or no HDF5.

    """

    format: str | None = None
    """What the files are called where no group inside has to tell."""

    def __init__(
        self,
        path: Path,
        root: Path | None = None,
        *,
        more_roots: Sequence[Path] = (),
        growing: bool = False,
    ) -> None:
        super().__init__()
        self.path = path
        self._growing = growing
        self.has_own_root = root is not None
        own = root if root is not None else path.resolve().parent
        self.roots = tuple(dict.fromkeys(folder.resolve() for folder in (own, *more_roots)))
        if not self.allows(path.resolve()):
            raise RunError(
                "the file is a link out of the allowed folders",
                where=path,
                expected=f"a file below {self.told_roots}",
                found=path.resolve(),
                remedy=f"Copy the file, or {ALLOW}",
            )
        self.doubts: list[str] = []
        """What was read although it is odd, in whole sentences."""
        self._open: dict[Path, Any] = {}
        self._storage = StorageCheck(self)
        try:
            self.file = self._open_file(path)
        except BaseException:
            self.close()
            raise

    def allows(self, path: Path) -> bool:
        """Tell whether a resolved path lies in one of the folders that may be read."""
        return any(path.is_relative_to(root) for root in self.roots)

    @property
    def told_roots(self) -> str:
        """The folders that may be read, for messages."""
        return " or ".join(map(str, self.roots))

    @property
    def files(self) -> list[Path]:
        """Every file that has been opened, the run's own first."""
        return list(self._open)

    def dataset(self, name: str) -> Any:
        """Return the data set at an absolute path, following links inside the root.

        Raises
        ------
        RunError
            There is no such data set, or a link on the way is broken, circular or leaves the root.

        """
        found = self.find(name)
        if found is None:
            raise RunError("no such data set", where=self.path, found=name, remedy=self._suggestion())
        if not isinstance(found, h5py.Dataset):
            raise RunError(
                "not a data set", where=self.path, expected=f"a data set at {name}", found="a group"
            )
        return found

    def value(self, name: str, max_size: int = 64) -> Any:
        """Return the whole of a small data set.

        Raises
        ------
        RunError
            There is none, it is larger than ``max_size`` elements, or damaged.

        """
        dataset = self.dataset(name)
        if dataset.size is None or dataset.size > max_size:
            found = f"shape {dataset.shape}"
            raise RunError(
                f"{name} is too large", where=self.path, expected=f"≤ {max_size} values", found=found
            )
        return self._guard(name, lambda: read_whole(dataset))

    def find(self, name: str) -> Any:
        """Return the object at an absolute path, or None; links are followed inside the root."""
        return self._guard(name, lambda: self._storage.check(self._walk(self.file, name, 0)))

    def has_link(self, name: str) -> bool:
        """Tell whether something bears an absolute name, be it a link that leads nowhere."""
        parent, _, last = name.rpartition("/")
        return self.link(self.find(parent or "/"), last) is not None

    def link(self, group: Any, name: str) -> Any:
        """Return what h5py says of the link that bears a name in a group, None where nothing does."""
        if not isinstance(group, h5py.Group):
            return None
        check_group(group)
        return self._guard(name, lambda: group.get(name, getlink=True))

    def names(self, group: Any, limit: int = MAX_OBJECTS) -> list[str]:
        """Return the names in a group, at most ``limit``, of links that lead nowhere too; none where there is no group."""
        if not isinstance(group, h5py.Group):
            return []
        try:
            check_group(group)
            return list(itertools.islice(group, limit))
        except (RunError, *DAMAGE):
            return []

    def doubt(self, sentence: str) -> None:
        """Note something odd, once, for those who look at the run."""
        if sentence not in self.doubts:
            self.doubts.append(sentence)

    def members(self, group: Any, limit: int = MAX_OBJECTS) -> Iterator[tuple[str, Any]]:
        """Yield name and object of a group's members; what is broken or forbidden is left out."""
        for name in self.names(group, limit):
            with contextlib.suppress(RunError, *DAMAGE):
                found = self._storage.check(self._walk(group, name, 0))
                if found is not None:
                    yield name, found

    def datasets(self) -> Iterator[tuple[str, Any]]:
        """Yield absolute path and data set of everything in the file, breadth first, within fixed bounds."""
        queue: list[tuple[str, Any, int]] = [("", self.file["/"], 0)]
        seen, known = 0, {address(self.file["/"])}
        while queue:
            prefix, group, depth = queue.pop(0)
            for name, found in self.members(group):
                seen += 1
                if seen > MAX_OBJECTS:
                    return
                if isinstance(found, h5py.Dataset):
                    yield f"{prefix}/{name}", found
                elif isinstance(found, h5py.Group) and depth < MAX_DEPTH and address(found) not in known:
                    known.add(address(found))  # hard links may lead to a group along many ways
                    queue.append((f"{prefix}/{name}", found, depth + 1))

    def described(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Return path, shape and dtype of every data set that can be looked at."""
        found = []
        for name, dataset in self.datasets():
            with contextlib.suppress(*DAMAGE):
                found.append((name, tuple(dataset.shape or ()), str(dataset.dtype)))
        return found

    def close(self) -> None:
        """Close every file; damage that shows only now is of no interest any more."""
        with contextlib.suppress(*DAMAGE):
            super().close()

    def _guard(self, name: str, step: Callable[[], T]) -> T:
        try:
            return step()
        except DAMAGE as error:
            raise damaged(self.path, error, name) from error

    def _walk(self, start: Any, name: str, links: int) -> Any:
        node = start.file["/"] if name.startswith("/") else start
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for i, part in enumerate(parts):
            if not isinstance(node, h5py.Group):
                return None
            check_group(node)
            link = node.get(part, getlink=True)
            if link is None:
                return None
            if isinstance(link, h5py.HardLink):
                node = node[part]
                continue
            if links >= MAX_LINKS:
                raise RunError("links go in a circle", where=self.path, found=name)
            rest = posixpath.join(*parts[i + 1 :]) if i + 1 < len(parts) else ""
            return self._follow(node, link, rest, links + 1)
        return node

    def _follow(self, node: Any, link: Any, rest: str, links: int) -> Any:
        target = posixpath.join(link.path, rest) if rest else link.path
        if isinstance(link, h5py.ExternalLink):
            target = target if target.startswith("/") else f"/{target}"
            file = self._open_file(self.inside(Path(node.file.filename), link.filename))
            return self._walk(file, target, links)
        return self._walk(node, target, links)

    def inside(self, linking: Path, name: str) -> Path:
        """Return the path of a file that another one names; as in HDF5, one that was moved with it lies beside it.

        Raises
        ------
        RunError
            It is missing, or lies outside of the allowed folders.

        """
        folder = linking.resolve().parent
        target = (folder / name).resolve()
        if Path(name).is_absolute() and not target.exists() and (folder / target.name).exists():
            target = (folder / target.name).resolve()
        if not self.allows(target):
            raise RunError(
                "a link leaves the allowed folders",
                where=linking,
                expected=f"files below {self.told_roots}",
                found=name,
                remedy=f"Move the linked file there, or {ALLOW}",
            )
        if not target.is_file():
            raise LinkedFileMissingError(
                "a linked file is missing", where=linking, found=name, remedy="Copy it beside the run."
            )
        return target

    def source(self, dataset: Any, file_name: str, path: str) -> Any:
        """Return the object behind a virtual data set, which may lie behind links; None where there is none."""
        here = Path(dataset.file.filename)
        file = dataset.file if file_name == "." else self._open_file(self.inside(here, file_name))
        return self._walk(file, path if path.startswith("/") else f"/{path}", 0)

    def _open_file(self, path: Path) -> Any:
        resolved = path.resolve()
        if resolved not in self._open:
            self._open[resolved] = self.enter_context(open_hdf5(resolved, growing=self._growing))
        return self._open[resolved]

    def _suggestion(self) -> str:
        names = [name for name, shape, _ in self.described() if len(shape) >= 2]
        return (
            f"Data sets with images may be {', '.join(names[:5])}." if names else "The file holds no images."
        )


def open_hdf5(path: Path, *, growing: bool = False) -> Any:
    """Open an HDF5 file for reading, ``growing`` if another process is writing it in SWMR mode.

    Raises
    ------
    RunError
        The file is missing, empty, truncated, still open for writing, or no HDF5; the message says which. Or HDF5
        itself crashes on it, in a process of its own (:mod:`peaknet_pipeline.hdf5.trial`).

    """
    if not path.is_file():
        raise RunError("no such file", where=path, remedy="Check the path.")
    if path.stat().st_size == 0:
        raise RunError("the file is empty", where=path, expected="an HDF5 file", found="0 bytes")
    try_file(path, growing=growing)
    opener: Callable[..., Any] = h5py.File
    try:
        return opener(path, "r", libver="latest", swmr=True) if growing else opener(path, "r")
    except DAMAGE as error:  # of a damaged root, HDF5 tells by RuntimeError
        raise _describe(path, str(error)) from error


def damaged(path: Path, error: BaseException, what: str = "the file") -> RunError:
    """Return the RunError for a file that is damaged inside."""
    return RunError(f"{what} is damaged ({error})", where=path, remedy="Copy the file again.")


def _describe(path: Path, message: str) -> RunError:
    size = f"{path.stat().st_size} bytes"
    if "truncated file" in message:
        stored = message.rpartition("stored_eof = ")[2].rstrip(")")
        return RunError(
            "the file is truncated",
            where=path,
            expected=f"{stored} bytes",
            found=size,
            remedy="Copy it again.",
        )
    if "lock" in message or "already open for write" in message:
        return RunError(
            "the file is still being written", where=path, remedy="Wait until its writer closes it."
        )
    if "signature not found" in message:
        return RunError("not an HDF5 file", where=path, found=size, remedy="Give an HDF5, CXI or NeXus file.")
    return RunError(f"cannot be opened ({message})", where=path, found=size, remedy="Copy it again.")
