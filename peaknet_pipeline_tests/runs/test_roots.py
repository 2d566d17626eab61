"""Links lead out of a run's folder only where someone allows it, and then everything behind them is confined, too."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.infer.live_sources import Patience, follow_folder
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.runs.files import CXI_DATA, module_geometry, random_stack, write_run

N_PANELS, HEIGHT, WIDTH = 3, 6, 8


@pytest.fixture
def virtual(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Write a file of virtual panels in scratch/ whose sources lie, by absolute path, in proc/."""
    stack = random_stack(4)
    (tmp_path / "proc").mkdir()
    (tmp_path / "scratch").mkdir()
    layout = h5py.VirtualLayout(stack.shape, stack.dtype)
    for panel in range(N_PANELS):
        source = tmp_path / "proc" / f"panel{panel}.h5"
        with h5py.File(source, "w") as file:
            file["image/data"] = stack[:, panel]
        layout[:, panel] = h5py.VirtualSource(str(source), "image/data", stack[:, panel].shape)
    with h5py.File(tmp_path / "scratch" / "r0001.cxi", "w") as file:
        file.create_virtual_dataset(CXI_DATA, layout)
    return tmp_path / "scratch" / "r0001.cxi", stack


def test_a_virtual_data_set_reads_its_sources_where_their_folder_is_allowed(
    virtual: tuple[Path, np.ndarray],
) -> None:
    path, stack = virtual
    with pytest.raises(RunError, match=r"leaves the allowed folders.*--root FOLDER.*allowed_roots"):
        open_run(path, module_geometry())
    with open_run(path, module_geometry(), more_roots=[path.parents[1] / "proc"]) as run:
        assert np.array_equal(run.read(0, 4), stack)


def test_inspection_takes_several_folders(virtual: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, _ = virtual
    (tmp_path / "a").mkdir()
    roots = [tmp_path / "a", tmp_path / "proc"]
    assert not inspect_path(path, more_roots=roots[:1]).is_usable
    assert inspect_path(path, more_roots=roots).facts["frames"] == 4


def test_what_lies_behind_an_allowed_link_is_confined_too(tmp_path: Path) -> None:
    for name in ("run", "allowed", "secret"):
        (tmp_path / name).mkdir()
    write_run(tmp_path / "secret" / "s.h5", random_stack(2))
    with h5py.File(tmp_path / "allowed" / "a.h5", "w") as file:
        file[CXI_DATA] = h5py.ExternalLink("../secret/s.h5", CXI_DATA)
    with h5py.File(tmp_path / "run" / "run.h5", "w") as file:
        file[CXI_DATA] = h5py.ExternalLink("../allowed/a.h5", CXI_DATA)
    with pytest.raises(RunError, match="leaves the allowed folders"):
        open_run(tmp_path / "run" / "run.h5", more_roots=[tmp_path / "allowed"])


def test_a_run_that_is_a_symbolic_link_lies_where_it_leads(
    virtual: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, stack = virtual
    (tmp_path / "raw").mkdir()
    link = tmp_path / "raw" / "r0001.cxi"
    link.symlink_to(path)
    with pytest.raises(RunError, match="link out of the allowed folders"):
        open_run(link, root=tmp_path / "raw", more_roots=[tmp_path / "proc"])
    roots = [tmp_path / "proc", tmp_path / "scratch"]
    with open_run(link, module_geometry(), root=tmp_path / "raw", more_roots=roots) as run:
        assert np.array_equal(run.read(0, 4), stack)


def test_a_master_that_was_moved_with_its_data_finds_them_beside_it(tmp_path: Path) -> None:
    stack = random_stack(3)
    (tmp_path / "new").mkdir()
    write_run(tmp_path / "new" / "data.h5", stack)
    with h5py.File(tmp_path / "new" / "master.h5", "w") as file:
        file[CXI_DATA] = h5py.ExternalLink(str(tmp_path / "old" / "data.h5"), CXI_DATA)
    with open_run(tmp_path / "new" / "master.h5") as run:
        assert np.array_equal(run.read(0, 3), stack)


def test_a_live_folder_takes_linked_runs_whose_folder_is_allowed(
    virtual: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, stack = virtual
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "r0001.cxi").symlink_to(path)

    def arrived(*roots: str) -> list[np.ndarray]:
        folders = [tmp_path / name for name in roots]
        patience = Patience(0.01, 0.05)
        told = follow_folder(tmp_path / "live", settle_s=0.0, patience=patience, more_roots=folders)
        return [frame for arrival in told for frame in arrival.frames]

    assert not arrived()
    assert not arrived("scratch")
    assert np.array_equal(arrived("scratch", "proc"), stack)
