"""Files made to mislead: nothing outside the allowed folder is read, whatever leads there, and nothing blows up."""

import contextlib
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import peaknet_pipeline
from peaknet_pipeline.errors import PeaknetError, RunError
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline_tests.runs.files import CXI_DATA, slab_geometry, write_slab_run
from peaknet_pipeline_tests.runs.test_fuzz import _peak_memory_bytes

SHAPE = (4, 18, 8)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw root beside a file that is none of its business."""
    write_slab_run(tmp_path / "secret.h5")
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def virtual(path: Path, source: str, place: str, *, name: str = CXI_DATA) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.uint16)
    layout[:] = h5py.VirtualSource(source, place, SHAPE)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(name, layout)


def behind_an_external_link_of_its_own(raw: Path) -> None:
    with h5py.File(raw / "run.cxi", "w") as file:
        file["/out"] = h5py.ExternalLink("../secret.h5", "/")
    virtual(raw / "run.cxi", ".", f"/out{CXI_DATA}")


def behind_an_external_link_of_its_source(raw: Path) -> None:
    with h5py.File(raw / "inside.h5", "w") as file:
        file["/out"] = h5py.ExternalLink("../secret.h5", "/")
    virtual(raw / "run.cxi", "inside.h5", f"/out{CXI_DATA}")


def virtual_through_virtual(raw: Path) -> None:
    virtual(raw / "inside.h5", "../secret.h5", CXI_DATA)
    virtual(raw / "run.cxi", "inside.h5", CXI_DATA)


def link_in_the_file_system(raw: Path) -> None:
    (raw / "inside.h5").symlink_to("../secret.h5")
    virtual(raw / "run.cxi", "inside.h5", CXI_DATA)


def run_that_is_a_link(raw: Path) -> None:
    (raw / "run.cxi").symlink_to("../secret.h5")


@pytest.mark.parametrize(
    "lead_out",
    [
        behind_an_external_link_of_its_own,
        behind_an_external_link_of_its_source,
        virtual_through_virtual,
        link_in_the_file_system,
        run_that_is_a_link,
    ],
)
def test_no_detour_leads_out_of_the_raw_root(raw: Path, lead_out: Callable[[Path], None]) -> None:
    lead_out(raw)
    for geometry in (slab_geometry(), None):
        with pytest.raises(RunError, match=r"allowed folder"):
            open_run(raw / "run.cxi", geometry, root=raw)


def test_virtual_data_sets_inside_the_root_are_read(raw: Path) -> None:
    stack = write_slab_run(raw / "inside.h5")
    virtual(raw / "middle.h5", "inside.h5", CXI_DATA)
    virtual(raw / "run.cxi", "middle.h5", CXI_DATA)
    with open_run(raw / "run.cxi", slab_geometry(), root=raw) as run:
        assert np.array_equal(run.read(0, 4), stack)


def test_a_virtual_data_set_that_is_its_own_source_ends(raw: Path) -> None:
    virtual(raw / "run.cxi", ".", CXI_DATA)
    with pytest.raises(RunError, match=r"circle"):
        open_run(raw / "run.cxi", slab_geometry(), root=raw)


def test_sources_by_pattern_are_refused(raw: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.uint16, maxshape=(None, *SHAPE[1:]))
    layout[: h5py.h5s.UNLIMITED, :, :] = h5py.VirtualSource("inside.h5", "/out%b/data", (1, *SHAPE[1:]))
    with h5py.File(raw / "run.cxi", "w") as file:
        file.create_virtual_dataset(CXI_DATA, layout)
    write_slab_run(raw / "inside.h5")
    with pytest.raises(RunError, match=r"pattern|no frames"):
        open_run(raw / "run.cxi", slab_geometry(), root=raw)


def test_external_storage_by_relative_name_is_refused(raw: Path) -> None:
    """HDF5 would look for it in the working directory, not where the check looked."""
    (raw / "pixels.bin").write_bytes(bytes(int(np.prod(SHAPE)) * 2))
    with h5py.File(raw / "run.cxi", "w") as file:
        file.create_dataset(CXI_DATA, SHAPE, np.uint16, external=[("pixels.bin", 0, int(np.prod(SHAPE)) * 2)])
    with pytest.raises(RunError, match=r"relative name"):
        open_run(raw / "run.cxi", slab_geometry(), root=raw)


@pytest.mark.parametrize("place", ["/LCLS/photon_energy_eV", "/entry/instrument/detector/detector_distance"])
def test_values_beside_the_pixels_do_not_come_from_outside_either(raw: Path, place: str) -> None:
    with h5py.File(raw.parent / "secret.h5", "a") as file:
        file["/number"] = np.full(4, 1234.5)
    write_slab_run(raw / "run.cxi")
    layout = h5py.VirtualLayout((4,), np.float64)
    layout[:] = h5py.VirtualSource("../secret.h5", "/number", (4,))
    with h5py.File(raw / "run.cxi", "a") as file:
        file.create_virtual_dataset(place, layout)
        file["/entry/definition"] = "NXmx"
    with contextlib.suppress(RunError), open_run(raw / "run.cxi", root=raw) as run:
        assert not np.any(run.photon_energy_ev == 1234.5)
        assert run.geometry is None


def test_a_mask_file_does_not_lead_elsewhere(raw: Path) -> None:
    with h5py.File(raw / "mask.h5", "w") as file:
        file["/mask"] = h5py.ExternalLink("../secret.h5", CXI_DATA)
    with pytest.raises(RunError, match=r"a link leaves the allowed folder"):
        read_mask(raw / "mask.h5")


def bomb(n_bytes: int) -> bytes:
    packer = zlib.compressobj(1)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(n_bytes // 2**20)) + packer.flush()


@pytest.mark.parametrize("filter_mask", [0, 1])
def test_a_chunk_that_inflates_without_end_is_refused_within_its_declared_size(
    tmp_path: Path, filter_mask: int
) -> None:
    with h5py.File(tmp_path / "bomb.cxi", "w") as file:
        chunk = (1, *SHAPE[1:])
        dataset = file.create_dataset(CXI_DATA, SHAPE, "u2", chunks=chunk, compression="gzip", shuffle=True)
        dataset[1:] = 1
        dataset.id.write_direct_chunk((0, 0, 0), bomb(512 * 2**20), filter_mask)
    before = _peak_memory_bytes()
    with open_run(tmp_path / "bomb.cxi", slab_geometry()) as run:
        assert run.read(1, 4).max() == 1
        with pytest.raises(RunError, match=r"a chunk is damaged.*expected"):
            run.read(0, 4)
    assert _peak_memory_bytes() - before < 100 * 2**20


def test_nothing_in_the_package_unpickles_or_loads_yaml_with_code() -> None:
    """Weights are safetensors, settings are plain YAML, arrays are loaded without pickle."""
    forbidden = re.compile(
        r"torch\.load\(|pickle\.loads?\(|joblib|yaml\.(unsafe_|full_)?load\(|allow_pickle=True|\beval\(|\bexec\("
        r"|shell=True|os\.system\("
    )
    allowed = {"model.eval(", ".eval("}
    for path in Path(peaknet_pipeline.__file__).parent.rglob("*.py"):
        for line in path.read_text().splitlines():
            found = forbidden.search(line)
            assert not found or any(word in line for word in allowed), f"{path}: {line.strip()}"


@pytest.mark.parametrize(
    "line",
    [
        "clen = nan",
        "clen = -1e308",
        "res = inf",
        "res = 1e-320",
        "photon_energy = nan eV",
        "photon_energy = -9500 eV",
        "photon_energy = 1e400 eV",
        "m0/corner_x = nan",
        "m0/corner_x = 1e300",
        "m0/fs = 1e300x",
        "m0/fs = 0x",
        "m0/max_fs = 99999999999",
        "m0/min_fs = -5",
        "adu_per_photon = nan",
        "adu_per_photon = 0",
        "m0/mask_edge_pixels = 1e300",
    ],
)
def test_impossible_values_of_a_geometry_are_refused_or_harmless(tmp_path: Path, line: str) -> None:
    """An error of ours or a run whose frames are read; never another exception or an allocation by the value."""
    write_slab_run(tmp_path / "run.cxi")
    key = line.split("=")[0].strip()
    kept = [each for each in slab_geometry().text.splitlines() if not each.startswith(f"{key} ")]
    (tmp_path / "d.geom").write_text("\n".join([line, *kept] if "/" not in line else [*kept, line]) + "\n")
    before = _peak_memory_bytes()
    with contextlib.suppress(PeaknetError), open_run(tmp_path / "run.cxi", tmp_path / "d.geom") as run:
        assert run.read(0, 1).shape == (1, 3, 6, 8)
    assert _peak_memory_bytes() - before < 200 * 2**20
