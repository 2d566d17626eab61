"""Zarr stores as runs: frames in the first dimension, values and masks at the paths that the geometry names."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.files import ALLOW, LinkedFiles
from peaknet_pipeline.runs.zarr_array import STORE_FILES, ZarrArray, is_array

MAX_ARRAYS = 1000
MAX_DEPTH = 8


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in STORE_FILES)


class ZarrFiles(LinkedFiles):
    """An open Zarr store, looked up like a run's HDF5 file; see :class:`LinkedFiles` for what it may read."""

    format = "zarr"

    def __init__(self, path: Path, root: Path | None = None, *, more_roots: Sequence[Path] = ()) -> None:
        super(LinkedFiles, self).__init__()
        self.path = path
        self.has_own_root = root is not None
        own = root if root is not None else path.resolve()
        self.roots = tuple(dict.fromkeys(folder.resolve() for folder in (own, *more_roots)))
        if not self.allows(path.resolve()):
            what, expected = (
                "the store is a link out of the allowed folders",
                f"a folder below {self.told_roots}",
            )
            raise RunError(
                what, where=path, expected=expected, found=path.resolve(), remedy=f"Copy it, or {ALLOW}"
            )
        self.doubts = []
        self._arrays: dict[str, ZarrArray] = {}

    @property
    def files(self) -> list[Path]:
        """Every file of the store, hidden ones (metadata) too, in order of name."""
        found = (Path(folder) / name for folder, _, names in os.walk(self.path) for name in names)
        return sorted(file for file in found if file.is_file())

    @property
    def data_path(self) -> str | None:
        """``/`` where the store is a single array; None where it is a group of some."""
        return "/" if is_array(self.path) else None

    def find(self, name: str) -> Any:
        """Return the array at an absolute path, or None."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        folder = self.path.joinpath(*parts)
        if ".." in parts or any(part in STORE_FILES for part in parts) or not folder.is_dir():
            return None
        if not self.allows(folder.resolve()):
            raise RunError(
                "an array is a link out of the allowed folders",
                where=folder,
                expected=f"a folder below {self.told_roots}",
                found=folder.resolve(),
                remedy=f"Copy it, or {ALLOW}",
            )
        if not is_array(folder):
            return None
        if name not in self._arrays:
            self._arrays[name] = ZarrArray(folder, name, self.allows)
        return self._arrays[name]

    def dataset(self, name: str) -> Any:
        """Return the array at an absolute path.

        Raises
        ------
        RunError
            There is none.

        """
        found = self.find(name)
        if found is None:
            arrays = ", ".join(path for path, *_ in self.described()[:5]) or "none"
            raise RunError(
                "no such array", where=self.path, found=name, remedy=f"The store's arrays: {arrays}."
            )
        return found

    def has_link(self, name: str) -> bool:
        """Tell whether there is an array of that name."""
        return self.find(name) is not None

    def described(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Return path, shape and dtype of the store's arrays."""
        found = []
        for folder, folders, _ in os.walk(self.path):
            parts = Path(folder).relative_to(self.path).parts
            if is_array(Path(folder)):
                folders.clear()
                array = self.dataset("/" + "/".join(parts))
                found.append((array.name, array.shape, str(array.dtype)))
            elif len(parts) >= MAX_DEPTH:
                folders.clear()
            folders.sort()
            if len(found) >= MAX_ARRAYS:
                break
        return found
