"""Open a raw run and say everything that is wrong with it at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles, damaged
from peaknet_pipeline.runs.checksum import checksum_files
from peaknet_pipeline.runs.euxfel import open_euxfel_run
from peaknet_pipeline.runs.file_list import is_list, open_listed
from peaknet_pipeline.runs.formats import file_format
from peaknet_pipeline.runs.joined import MAX_FILES, RunPart, join_runs
from peaknet_pipeline.runs.lcls import SUFFIX, open_lcls_run
from peaknet_pipeline.runs.metadata import read_clen, read_photon_energy
from peaknet_pipeline.runs.names import files_of_run, is_euxfel_file
from peaknet_pipeline.runs.nexus import doubt_fewer_frames, read_nexus_geometry
from peaknet_pipeline.runs.nexus_limits import with_file_limits
from peaknet_pipeline.runs.other_frames import doubt_other_frames
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.run_masks import JointMask, read_joint_mask
from peaknet_pipeline.runs.series import FrameOrder, open_series
from peaknet_pipeline.runs.sources import (
    FrameSource,
    find_data_path,
    open_panel_sources,
    open_source,
)
from peaknet_pipeline.runs.zarr import ZarrFiles, is_zarr
from peaknet_pipeline.types import Float64Array, Geometry, RunInfo

T = TypeVar("T")


def open_run(
    path: Path | str | Sequence[Path | str],
    geometry: Geometry | Path | str | None = None,
    *,
    data_path: str | None = None,
    root: Path | str | None = None,
    more_roots: Sequence[Path] = (),
    invert_masks: bool = False,
) -> Run:
    """Open a raw run: CXI, plain HDF5, NeXus, EuXFEL or LCLS.

    Parameters
    ----------
    path : Path, or several
        The run's file; a master file where data files are linked; a directory for a EuXFEL run, or one that holds the
        files of one run; a folder that is a Zarr store; a ``.psana`` file that names an LCLS run; a ``.lst`` file that
        lists files, or frames of files.
        Several files are one run: their frames, file by file, in the order given.
    geometry : Geometry or path, optional
        Without one, frames are (n, ss, fs) or (n, panels, ss, fs) as stored.
    data_path : str, optional
        HDF5 path of the frames; by default the geometry's, else found: a conventional place or the largest
        stack.
    root : Path, optional
        Folder that the file and links in it may not leave; the run file's own folder by default.
    more_roots : sequence of Path
        Further folders that links may lead into, such as that of a virtual data set's sources.
    invert_masks : bool
        Turn a mask of the run round that takes more than half of its pixels.

    Raises
    ------
    RunError
        Naming file, every problem found, and the remedy.
    GeometryError
        The geometry file does not parse.

    """
    if geometry is not None and not isinstance(geometry, Geometry):
        geometry = read_geometry(geometry)
    folder = Path(root) if root is not None else None
    opening = Opening(geometry, data_path, folder, tuple(more_roots), invert_masks)
    if not isinstance(path, str | Path):
        files = [Path(one) for one in path]
        return open_files(files, opening, path=files[0] if files else Path())
    path = Path(path)
    if is_zarr(path):
        return _open_file(path, opening)
    if path.is_dir():
        return _open_folder(path, opening)
    if path.suffix == SUFFIX:
        return open_lcls_run(path, geometry)
    if is_list(path):
        return open_listed(path, lambda file: _open_file(file, opening), geometry)
    return _open_file(path, opening)


@dataclass(frozen=True)
class Opening:
    """How the files of a run are opened; see :func:`open_run`."""

    geometry: Geometry | None
    data_path: str | None
    root: Path | None
    more_roots: tuple[Path, ...] = ()
    invert_masks: bool = False


def open_files(files: Sequence[Path], opening: Opening, *, path: Path) -> Run:
    """Open several files as one run, in order; ``path`` is what names it.

    Raises
    ------
    RunError
        There is none, or too many; one cannot be opened, or they don't belong together.

    """
    if not 0 < len(files) <= MAX_FILES:
        raise RunError("a run of so many files", where=path, expected=f"1 … {MAX_FILES}", found=len(files))
    opened: list[RunPart] = []
    try:
        for file in files:
            opened.append(RunPart(_open_file(file, opening)))
        return opened[0].run if len(opened) == 1 else join_runs(opened, path, geometry=opening.geometry)
    except BaseException:
        for part in opened:
            part.run.close()
        raise


def _open_folder(path: Path, opening: Opening) -> Run:
    """Open a EuXFEL run directory, or a directory that holds the files of one run."""
    files = files_of_run(path)
    if any(is_euxfel_file(file) for file in files or path.glob("*.h5")):
        return open_euxfel_run(path, opening.geometry)
    if not files:
        raise RunError(
            "no file in this folder bears the name of a run's file",
            where=path,
            expected="files of one run, such as r0001.h5 or run12_master.h5, or a EuXFEL run's RAW-R0001-….h5",
            found=", ".join(sorted(one.name for one in path.iterdir())[:5]) or "an empty folder",
            remedy="Give the file itself, or list the files of the run in a text file that ends in .lst.",
        )
    return open_files(files, replace(opening, root=opening.root or path.resolve()), path=path)


def _open_file(path: Path, opening: Opening) -> Run:
    files, data_path = _open_files(path, opening)
    try:
        run, problems = assemble_run(files, opening.geometry, data_path, invert_masks=opening.invert_masks)
    except DAMAGE as error:
        files.close()
        raise damaged(path, error) from error
    except BaseException:
        files.close()
        raise
    if run is None or problems:
        files.close()
        raise join_problems(path, problems)
    return run


def _open_files(path: Path, opening: Opening) -> tuple[LinkedFiles, str | None]:
    """Return the open files, and where the frames are if that is known; a Zarr store may be the frames themselves."""
    if is_zarr(path):
        store = ZarrFiles(path, opening.root, more_roots=opening.more_roots)
        return store, store.data_path or opening.data_path
    return LinkedFiles(path, opening.root, more_roots=opening.more_roots), opening.data_path


class ProblemList(list[RunError]):
    """The problems of a file, collected while it is opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def attempt(self, step: Callable[[], T], default: T) -> T:
        """Return what ``step`` returns, or ``default`` after noting its problem."""
        try:
            return step()
        except RunError as error:
            self._note(_located(error, self.path))
        except DAMAGE as error:
            self._note(damaged(self.path, error))
        return default

    def _note(self, error: RunError) -> None:
        """Add a problem, once: two steps may meet the same one."""
        if str(error) not in map(str, self):
            self.append(error)


def assemble_run(
    files: LinkedFiles, geometry: Geometry | None, data_path: str | None, *, invert_masks: bool = False
) -> tuple[Run | None, list[RunError]]:
    """Build a run from open files; return it (None without frames) and every problem on the way."""
    problems = ProblemList(files.path)
    if geometry is None and file_format(files) == "nxmx":
        geometry = problems.attempt(lambda: _nexus_geometry(files, data_path), None)
    nothing: tuple[str, tuple[FrameSource, ...]] = ("", ())
    path, sources = problems.attempt(lambda: _open_sources(files, geometry, data_path), nothing)
    if not sources:
        return None, problems
    geometry = _with_limits(files, geometry, sources)
    doubt_other_frames(files, path)
    order = problems.attempt(lambda: _frame_order(sources), sources[0].order)
    shape = sources[0].slab_map.stack_shape
    unknown = np.full(order.n_frames, np.nan)
    energy = problems.attempt(lambda: read_photon_energy(files, geometry, order), unknown)
    clen = problems.attempt(lambda: read_clen(files, geometry, order), None)
    no_mask: JointMask = (None, np.zeros(shape, dtype=np.bool_), ())
    mask_path, bad_pixels, mask_sources = problems.attempt(
        lambda: read_joint_mask(files, geometry, shape, order.events, invert=invert_masks), no_mask
    )
    info = _run_info(files, path, sources, energy, geometry, mask_path)
    if info.file_format == "nxmx":
        doubt_fewer_frames(files, info.n_frames)
    run = Run(
        files,
        sources,
        info=info,
        geometry=_resolved(geometry, energy, clen),
        bad_pixels=bad_pixels,
        mask_sources=mask_sources,
        clen_m=clen,
        doubts=tuple(files.doubts),
        roots=files.roots,
    )
    return run, problems


def join_problems(path: Path, problems: list[RunError]) -> RunError:
    """Return one error that tells all problems of a file."""
    if len(problems) == 1:
        return problems[0]
    lines = "; ".join(f"({i}) {str(p).removeprefix(f'{p.where}: ')}" for i, p in enumerate(problems, start=1))
    return RunError(f"{len(problems)} problems: {lines}", where=path)


def _located(error: RunError, path: Path) -> RunError:
    if error.where is not None:
        return error
    return RunError(error.what, where=path, expected=error.expected, found=error.found, remedy=error.remedy)


def _open_sources(
    files: LinkedFiles, geometry: Geometry | None, data_path: str | None
) -> tuple[str, tuple[FrameSource, ...]]:
    if data_path is None and geometry is not None:
        if any(panel.data_path for panel in geometry.panels):
            return geometry.panels[0].data_path or "", open_panel_sources(files, geometry)
        data_path = geometry.data_path
    path = data_path or find_data_path(files)
    return path, (open_source(files, path, geometry, named=data_path is not None),)


def _nexus_geometry(files: LinkedFiles, data_path: str | None) -> Geometry | None:
    """Return the geometry that an NXmx file describes; None: frames are read as they are."""
    path = data_path or find_data_path(files)
    dataset = open_series(files, path, named=data_path is not None).datasets[0]
    return read_nexus_geometry(files, dataset.shape[1:], dataset.dtype)


def _with_limits(
    files: LinkedFiles, geometry: Geometry | None, sources: tuple[FrameSource, ...]
) -> Geometry | None:
    """Return the geometry with the limits of pixel values that only the file tells."""
    if geometry is None or file_format(files) != "nxmx":
        return geometry
    return with_file_limits(files, geometry, sources[0].datasets[0].dtype)


def _frame_order(sources: tuple[FrameSource, ...]) -> FrameOrder:
    orders = list(dict.fromkeys(source.order for source in sources))
    if len(orders) > 1:
        found = sorted({order.n_frames for order in orders})
        raise RunError("panels differ in their number of frames", found=found)
    return orders[0]


def _resolved(geometry: Geometry | None, energy: Float64Array, clen: Float64Array | None) -> Geometry | None:
    if geometry is None:
        return None
    return resolve_geometry(geometry, photon_energy_ev=energy, clen_m=clen)


def _run_info(
    files: LinkedFiles,
    path: str,
    sources: tuple[FrameSource, ...],
    energy: Float64Array,
    geometry: Geometry | None,
    mask_path: str | None,
) -> RunInfo:
    first = sources[0]
    return RunInfo(
        path=files.path,
        data_path=path,
        file_format=file_format(files),
        n_frames=len(energy),
        stack_shape=first.slab_map.stack_shape,
        dtype=str(first.datasets[0].dtype.newbyteorder("=")),
        photon_energy_ev=energy,
        geometry_path=geometry.source if geometry is not None else None,
        mask_path=mask_path,
        checksum=checksum_files(files.files),
        size_bytes=sum(file.stat().st_size for file in files.files),
        files=tuple(files.files),
    )
