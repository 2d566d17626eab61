"""What most stages of one run need first: its experiment, raw file, geometry, cell and bad pixels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.runs.calibrate import CalibrationParams
from peaknet_pipeline.runs.calibrated import CalibrationFile
from peaknet_pipeline.runs.make_mask import MaskParams
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.store.experiment import Experiment, read_experiment
from peaknet_pipeline.store.keys import RunKey, parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.raw_root import find_run_files
from peaknet_pipeline.types import FrameArray


@dataclass(frozen=True)
class RunContext:
    """One run's files and settings.

    The detector isn't here: a geometry file may leave camera length, photon energy and gain to the run, so that only the
    geometry of the opened run has them all.
    """

    store: Store
    key: RunKey
    experiment: Experiment
    files: tuple[Path, ...]

    @property
    def path_to_open(self) -> Path | tuple[Path, ...]:
        """What ``open_run`` takes: the run's file or folder, or its files in order."""
        return self.files[0] if len(self.files) == 1 else self.files

    @property
    def settings_files(self) -> list[Path]:
        """Files whose change makes every output of the run stale."""
        experiment = self.experiment
        files = (experiment.geometry, experiment.folder / "experiment.yaml", experiment.calibration_file)
        return [path for path in files if path is not None and path.is_file()]

    @property
    def calibration(self) -> CalibrationFile | None:
        """How raw frames are calibrated; None where they are calibrated already."""
        path = self.experiment.calibration_file
        params = self.experiment.parameters("calibration", CalibrationParams)
        return None if path is None else CalibrationFile(path, params)


def read_context(store: Store, key: str, *, anew: bool = False) -> RunContext:
    """Find a run's raw files and read its experiment's settings; ``anew`` as for :func:`read_experiment`."""
    run_key = parse_key(key)
    experiment = read_experiment(store, run_key, anew=anew)
    return RunContext(store, run_key, experiment, find_run_files(store, run_key))


def found_cell_path(store: Store, key: str) -> Path:
    """Return where the cell that a run is indexed with lies when its experiment brings none."""
    return store.file("found_cell", key, ".cell")


def cell_file(context: RunContext) -> Path:
    """Return the file of the cell that a run is indexed with: the experiment's, or the one found for the run.

    Raises
    ------
    CellError
        The experiment has no ``.cell`` file and none was found yet.

    """
    if context.experiment.cell is not None:
        return context.experiment.cell
    path = found_cell_path(context.store, str(context.key))
    if not path.is_file():
        raise CellError(
            "no .cell file, and no cell found yet",
            where=context.experiment.folder,
            remedy="Put the cell there, or materialize found_cell for this run first.",
        )
    return path


@contextmanager
def open_raw(context: RunContext) -> Iterator[Run]:
    """Open the raw run, calibrated where the experiment says so; links may only lead where :func:`more_roots` says."""
    root, more, experiment = raw_root_of(context), more_roots(context), context.experiment
    geometry = read_geometry(experiment.geometry)
    path = context.path_to_open
    invert = experiment.parameters("mask", MaskParams).invert_masks
    with open_run(
        path, geometry, data_path=experiment.data_path, root=root, more_roots=more, invert_masks=invert
    ) as run:
        yield run if context.calibration is None else context.calibration.apply(run)


def raw_root_of(context: RunContext) -> Path:
    """Return the folder that a run's files may not leave: the raw root, or the experiment's folder linked into it."""
    root, folder = context.store.raw_root, context.experiment.folder
    return root if folder.resolve().is_relative_to(root.resolve()) else folder


def more_roots(context: RunContext) -> tuple[Path, ...]:
    """Return the folders besides the raw root that a run's files, and links in them, may lead into.

    They are the ``allowed_roots`` of the settings. Where none are set, whoever put a symbolic link into the experiment's
    folder is trusted with it, as with a linked folder: the folder that it leads to counts.
    """
    if context.experiment.allowed_roots:
        return context.experiment.allowed_roots
    targets = ((path, path.resolve()) for path in context.files)
    linked = (target if target.is_dir() else target.parent for path, target in targets if path.is_symlink())
    return tuple(dict.fromkeys(linked))


def frame_reader(run: Run) -> Callable[[int], FrameArray]:
    """Return a function that reads one frame, (n_panels, ss, fs), by its number."""

    def read(frame: int) -> FrameArray:
        single: FrameArray = run.read(frame, frame + 1)[0]
        return single

    return read
