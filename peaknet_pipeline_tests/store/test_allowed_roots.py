"""Where links of raw runs may lead is said by the settings; without them, a linked run file is trusted with its folder."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline_tests.runs.files import CXI_DATA, random_stack, slab_geometry, write_run

FRAMES = random_stack(2).reshape(2, -1, 8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A data root with the experiment lyso, whose run 1 lies in proc/ and run 2 in other/, both linked in."""
    store = Store(tmp_path / "data")
    folder = store.raw_root / "lyso"
    folder.mkdir(parents=True)
    (folder / "d.geom").write_text(slab_geometry().text)
    for number, place in ((1, "proc"), (2, "other")):
        (tmp_path / place).mkdir()
        write_run(tmp_path / place / "data.h5", FRAMES)
        with h5py.File(tmp_path / place / f"r000{number}.h5", "w") as file:
            file[CXI_DATA] = h5py.ExternalLink("data.h5", CXI_DATA)
        (folder / f"r000{number}.h5").symlink_to(tmp_path / place / f"r000{number}.h5")
    return store


def read(store: Store, key: str) -> np.ndarray:
    with open_raw(read_context(store, key)) as run:
        return run.read(0, 2).reshape(FRAMES.shape)


def test_a_linked_run_file_is_read_with_what_lies_beside_it(store: Store) -> None:
    assert np.array_equal(read(store, "lyso-r0001"), FRAMES)


def test_a_link_inside_a_linked_run_file_stays_confined(store: Store, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "proc" / "r0001.h5", "w") as file:
        file[CXI_DATA] = h5py.ExternalLink("../other/data.h5", CXI_DATA)
    with pytest.raises(RunError, match="leaves the allowed folders"):
        read(store, "lyso-r0001")
    (store.raw_root / "lyso" / "experiment.yaml").write_text(
        f"allowed_roots: [{tmp_path}/proc, {tmp_path}/other]\n"
    )
    assert np.array_equal(read(store, "lyso-r0001"), FRAMES)


@pytest.mark.parametrize("file", ["data/pipeline.yaml", "data/raw/lyso/experiment.yaml"])
def test_once_set_the_allowed_roots_hold_for_linked_run_files(
    store: Store, tmp_path: Path, file: str
) -> None:
    (tmp_path / file).write_text(f"allowed_roots: {tmp_path}/proc\n")
    assert np.array_equal(read(store, "lyso-r0001"), FRAMES)
    with pytest.raises(RunError, match=r"link out of the allowed folders.*allowed_roots"):
        read(store, "lyso-r0002")


def test_an_experiment_may_not_go_beyond_what_the_pipeline_allows(store: Store, tmp_path: Path) -> None:
    (tmp_path / "data" / "pipeline.yaml").write_text(f"allowed_roots: [{tmp_path}/proc]\n")
    (store.raw_root / "lyso" / "experiment.yaml").write_text(f"allowed_roots: [{tmp_path}/other]\n")
    with pytest.raises(ParameterError, match=r"lead out of those of .*pipeline.yaml"):
        read_context(store, "lyso-r0002")


@pytest.mark.parametrize("value", ["/no/such/folder", "[3]", "{a: b}"])
def test_allowed_roots_that_are_no_folders_are_refused(store: Store, value: str) -> None:
    (store.raw_root / "lyso" / "experiment.yaml").write_text(f"allowed_roots: {value}\n")
    with pytest.raises(ParameterError, match=r"experiment.yaml, line 1: allowed_roots are not folders"):
        read_context(store, "lyso-r0001")
