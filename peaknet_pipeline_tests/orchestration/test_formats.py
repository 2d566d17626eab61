"""Files as facilities write them go through Dagster, from ingest to metrics, and give what the same frames give in plain CXI.

The frames, energies and mask of one simulated run are written four times: as a plain CXI file, as an EIGER2 master whose
collection was stopped, with a group per frame as SACLA's converter does, and as European XFEL's virtual CXI.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.geometry.maps import panel_shape
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.schemas import INDEX, PEAKS, SCORES
from peaknet_pipeline.steps.geometry_file import write_run_geometry
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import HC_EV_ANGSTROM
from peaknet_pipeline_tests.orchestration.conftest import failure_text, open_world

ASSETS = (
    "raw_run",
    "run_statistics",
    "classical_peaks",
    "found_cell",
    "classical_index",
    "peaknet_peaks",
    "peaknet_index",
    "run_metrics",
)
FRAMES = 6
INVALID = 65535
DETECTOR = "entry/instrument/detector"
CXI_DETECTOR = "/entry_1/instrument_1/detector_1"


@dataclass
class Recorded:
    """What a detector recorded: slabs (n, panels·ss, fs), photon energies, the mask, and the geometry's text."""

    slabs: np.ndarray
    energy_ev: np.ndarray
    mask: np.ndarray
    text: str

    @property
    def stack(self) -> np.ndarray:
        """Return the frames as (n, panels, ss, fs)."""
        return self.slabs.reshape(len(self.slabs), *self.stack_shape)

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Return (panels, ss, fs)."""
        geometry = parse_geometry(self.text)
        return (len(geometry.panels), *panel_shape(geometry.panels[0]))


@pytest.fixture(scope="module")
def recorded(small_raw: Path) -> Recorded:
    """The first frames of a simulated run in unsigned integers, with pixels that the detector marks as invalid."""
    folder = small_raw / "raw" / "small"
    with h5py.File(folder / "r0001.h5") as file:
        slabs = np.clip(file["/entry_1/data_1/data"][:FRAMES], 0, INVALID - 1).astype(np.uint16)
        energy, mask = file["/LCLS/photon_energy_eV"][:FRAMES], file["/entry_1/data_1/mask"][()]
    slabs[:, 60:64, 100:140] = INVALID
    text = f"flag_equal = {INVALID}\n" + (folder / "small.geom").read_text()
    return Recorded(slabs, energy, mask, text)


def write_plain(folder: Path, recorded: Recorded) -> None:
    with h5py.File(folder / "r0001.cxi", "w") as file:
        file["/entry_1/data_1/data"] = recorded.slabs
        file["/entry_1/data_1/mask"] = recorded.mask
        file["/LCLS/photon_energy_eV"] = recorded.energy_ev
    (folder / "d.geom").write_text(recorded.text)


def write_eiger(folder: Path, recorded: Recorded) -> None:
    """Write a master with modules fast before slow and wavelengths in nm, planned for three files; the last is missing."""
    master = folder / "lyso_1_master.h5"
    with h5py.File(master, "w") as file:
        file["entry/definition"] = "NXmx"
        for k in range(3):
            name = f"lyso_1_data_{k + 1:06d}.h5"
            file[f"entry/data/data_{k + 1:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            if k < 2:
                with h5py.File(folder / name, "w") as data:
                    data["entry/data/data"] = recorded.slabs[3 * k : 3 * k + 3]
        wavelengths = HC_EV_ANGSTROM / np.resize(recorded.energy_ev, 9) / 10
        file["entry/instrument/beam/incident_wavelength"] = wavelengths
        file["entry/instrument/beam/incident_wavelength"].attrs["units"] = "nm"
        file[f"{DETECTOR}/pixel_mask"] = recorded.mask.astype(np.uint32)
        file[f"{DETECTOR}/detectorSpecific/nimages"] = 9
        _write_modules(file[DETECTOR], recorded)
    write_run_geometry(master, geometry=None, out=folder / "eiger.geom")


def _write_modules(detector: h5py.Group, recorded: Recorded) -> None:
    for number, panel in enumerate(parse_geometry(recorded.text).panels):
        module = detector.create_group(f"module_{number:03d}")
        module.attrs["NX_class"] = "NXdetector_module"
        height, width = panel_shape(panel)
        module["data_origin"], module["data_size"] = [panel.min_fs, panel.min_ss], [width, height]
        corner = np.array(
            [panel.corner_x * panel.pixel_size_m, panel.corner_y * panel.pixel_size_m, panel.clen_m]
        )
        length = float(np.linalg.norm(corner))
        _axis(module, "module_offset", 1e3 * length, "millimeters", corner / length, ".")
        for name, vector in (("fast", panel.fs_vec), ("slow", panel.ss_vec)):
            _axis(module, f"{name}_pixel_direction", 1e6 * panel.pixel_size_m, "um", vector, "module_offset")


def _axis(group: h5py.Group, name: str, value: float, units: str, vector: object, depends_on: str) -> None:
    group[name] = value
    kind = {"transformation_type": "translation", "depends_on": depends_on}
    group[name].attrs.update({"units": units, "vector": np.asarray(vector, float), **kind})


def write_sacla(folder: Path, recorded: Recorded) -> None:
    """Write a group per frame, with its own energy and mask."""
    with h5py.File(folder / "run1.h5", "w") as file:
        for k, slab in enumerate(recorded.slabs):
            group = file.create_group(f"tag-{5000 + 2 * k}")
            group["data"], group["mask"] = slab, recorded.mask
            group["photon_energy_ev"] = recorded.energy_ev[k]
    text = recorded.text.replace("/LCLS/photon_energy_eV", "/%/photon_energy_ev")
    text = text.replace("/entry_1/data_1/", "/%/").replace(
        "dim0 = %\ndim1 = ss\ndim2 = fs\n", "dim0 = ss\ndim1 = fs\n"
    )
    (folder / "d.geom").write_text(text)


def write_euxfel(folder: Path, recorded: Recorded) -> None:
    """Write a virtual CXI file over a file per module in proc/, which experiment.yaml allows, and link it in."""
    proc, scratch = folder.parents[2] / "proc", folder.parents[2] / "scratch"
    stack = recorded.stack
    layout = h5py.VirtualLayout(stack.shape, stack.dtype)
    for made in (proc, scratch):
        made.mkdir()
    for module in range(stack.shape[1]):
        name = proc / f"CORR-R0001-AGIPD{module:02d}-S00000.h5"
        with h5py.File(name, "w") as file:
            file["image/data"] = stack[:, module]
        layout[:, module] = h5py.VirtualSource(str(name), "image/data", stack[:, module].shape)
    with h5py.File(scratch / "r0001.cxi", "w") as file:
        file.create_virtual_dataset(f"{CXI_DETECTOR}/data", layout)
        file[f"{CXI_DETECTOR}/mask"] = recorded.mask.reshape(stack.shape[1:])
        file["/LCLS/photon_energy_eV"] = recorded.energy_ev
    (folder / "r0001.cxi").symlink_to(scratch / "r0001.cxi")
    (folder / "d.geom").write_text(_with_modules(recorded))


def _with_modules(recorded: Recorded) -> str:
    """Return the geometry's text with a module dimension instead of panels stacked along ss."""
    text = recorded.text.replace("/entry_1/data_1/", f"{CXI_DETECTOR}/")
    text = text.replace("dim1 = ss\ndim2 = fs\n", "dim2 = ss\ndim3 = fs\n")
    for number, panel in enumerate(parse_geometry(recorded.text).panels):
        height = panel_shape(panel)[0]
        for name, old, new in (("min", panel.min_ss, 0), ("max", panel.max_ss, height - 1)):
            text = text.replace(f"{panel.name}/{name}_ss = {old}\n", f"{panel.name}/{name}_ss = {new}\n")
        text += f"{panel.name}/dim1 = {number}\n"
    return text


WRITERS = {"plain": write_plain, "eiger": write_eiger, "sacla": write_sacla, "euxfel": write_euxfel}
SETTINGS = "finder: {threshold: 70, max_pix: 60, local_bg_radius: 4}\n"


@pytest.fixture(scope="module")
def world(recorded: Recorded, small_raw: Path, tmp_path_factory: pytest.TempPathFactory):
    """Every format as an experiment of its own, all of them through the chain."""
    base = tmp_path_factory.mktemp("formats")
    for name, write in WRITERS.items():
        folder = base / "data" / "raw" / name
        folder.mkdir(parents=True)
        shutil.copy(small_raw / "raw" / "small" / "small.cell", folder)
        write(folder, recorded)
        more = f"allowed_roots: [{base}/proc, {base}/scratch]\n" if name == "euxfel" else ""
        (folder / "experiment.yaml").write_text(SETTINGS + more)
    world = open_world(base / "data")
    register_runs(world.instance, [f"{name}-r0001" for name in WRITERS])
    for name in WRITERS:
        result = world.materialize(ASSETS, f"{name}-r0001")
        assert result.success, f"{name}: {failure_text(result)}"
    return world


@pytest.mark.parametrize("name", ["eiger", "sacla", "euxfel"])
@pytest.mark.parametrize("table", ["classical_peaks", "peaknet_peaks"])
def test_peaks_are_those_of_the_same_frames_in_plain_cxi(world, name: str, table: str) -> None:
    expected, found = (read_table(world.store.table(table, f"{n}-r0001"), PEAKS) for n in ("plain", name))
    assert len(expected) > 100
    if name == "eiger":  # its .geom holds the run's median photon energy
        expected, found = (peaks.drop(columns="inv_d") for peaks in (expected, found))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["eiger", "sacla", "euxfel"])
def test_lattices_and_rates_are_those_of_the_same_frames_in_plain_cxi(world, name: str) -> None:
    for finder in ("classical_index", "peaknet_index"):
        expected, found = (
            read_table(world.store.table(finder, f"{n}-r0001"), INDEX) for n in ("plain", name)
        )
        assert len(expected) == len(found) >= 2
        if name == "eiger":  # at another energy, an equivalent setting may be found first
            continue
        axes = [column for column in expected if column.startswith(("astar", "bstar", "cstar"))]
        np.testing.assert_allclose(found[axes], expected[axes], rtol=1e-3, atol=1e-5)
    rates = [read_table(world.store.table("run_metrics", f"{n}-r0001"), SCORES) for n in ("plain", name)]
    for column in ("frames", "hits", "indexed"):
        assert rates[0][column].tolist() == rates[1][column].tolist()


def test_a_stopped_collection_is_told_in_the_ingested_run(world) -> None:
    figures = read_recipe(world.store.file("raw_run", "eiger-r0001", ".json"))["figures"]
    assert figures["frames"] == FRAMES
    assert any("ends after 2 of 3 data sets" in doubt for doubt in figures["doubts"])
    assert any("planned 9 frames" in doubt for doubt in figures["doubts"])


def test_marked_pixels_are_in_no_peak(world) -> None:
    for name in WRITERS:
        peaks = read_table(world.store.table("classical_peaks", f"{name}-r0001"), PEAKS)
        inside = peaks["panel"].eq(0) & peaks["ss"].between(59.5, 63.5) & peaks["fs"].between(99.5, 139.5)
        assert not inside.any()
