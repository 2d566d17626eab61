"""NXmx masters open like any other run; their metadata place the pixels."""

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.maps import peak_inv_d, peak_positions_m
from peaknet_pipeline.geometry.rays import project_rays
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import HC_EV_ANGSTROM

HEIGHT, WIDTH = 20, 30


def write_master(folder: Path, counts: tuple[int, ...] = (3, 2), *, modules: bool = False) -> np.ndarray:
    """Write an EIGER-like master with linked data files; return the frames."""
    frames = np.random.default_rng(1).poisson(5, (sum(counts), HEIGHT, WIDTH)).astype(np.uint16)
    first = 0
    with h5py.File(folder / "run_master.h5", "w") as master:
        master["entry/definition"] = "NXmx"
        master["entry"].attrs["NX_class"] = "NXentry"
        for i, n in enumerate(counts, start=1):
            with h5py.File(folder / f"run_data_{i:06d}.h5", "w") as file:
                stack = frames[first : first + n]
                file.create_dataset(
                    "entry/data/data", data=stack, chunks=(1, HEIGHT, WIDTH), **hdf5plugin.Bitshuffle()
                )
            master[f"entry/data/data_{i:06d}"] = h5py.ExternalLink(f"run_data_{i:06d}.h5", "/entry/data/data")
            first += n
        detector = master.create_group("entry/instrument/detector")
        mask = np.zeros((HEIGHT, WIDTH), np.uint32)
        mask[4, 5] = 1 << 31
        detector["pixel_mask"] = mask
        for name, value, units in (
            ("detector_distance", 120.0, "mm"),
            ("beam_center_x", 14.5, "pixel"),
            ("beam_center_y", 9.0, "pixel"),
            ("x_pixel_size", 75e-6, "m"),
        ):
            detector[name] = value
            detector[name].attrs["units"] = units
        master["entry/instrument/beam/incident_wavelength"] = 1.3
        master["entry/instrument/beam/incident_wavelength"].attrs["units"] = "angstrom"
        if modules:
            _write_modules(master, detector)
    return frames


def _write_modules(master: h5py.File, detector: h5py.Group) -> None:
    """Describe two half-width modules, the second tilted by 90° about the beam, 0.2 m downstream."""
    chain = detector.create_group("transformations")
    _axis(chain, "distance", 200.0, "mm", (0, 0, 1), ".")
    _axis(chain, "turn", 90.0, "deg", (0, 0, 1), "distance", kind="rotation")
    for number, parent in ((0, "distance"), (1, "turn")):
        module = detector.create_group(f"module{number}")
        module.attrs["NX_class"] = "NXdetector_module"
        module["data_origin"] = [0, 15 * number]
        module["data_size"] = [HEIGHT, 15]
        path = f"/entry/instrument/detector/transformations/{parent}"
        _axis(module, "module_offset", 1.0, "mm", (1, 0, 0), path)
        _axis(module, "fast_pixel_direction", 75e-6, "m", (-1, 0, 0), "module_offset")
        _axis(module, "slow_pixel_direction", 75e-6, "m", (0, -1, 0), "module_offset")


def _axis(
    group: h5py.Group,
    name: str,
    value: float,
    units: str,
    vector: tuple[int, int, int],
    depends_on: str,
    kind: str = "translation",
) -> None:
    group[name] = value
    group[name].attrs.update(
        {
            "units": units,
            "vector": np.array(vector, float),
            "depends_on": depends_on,
            "transformation_type": kind,
        }
    )


def test_linked_data_files_are_one_run(tmp_path: Path) -> None:
    frames = write_master(tmp_path)
    with open_run(tmp_path / "run_master.h5") as run:
        assert run.info.file_format == "nxmx"
        assert run.n_frames == 5
        assert np.array_equal(run.read(0, 5)[:, 0], frames)
        assert np.array_equal(run.read(2, 4)[:, 0], frames[2:4])  # across the border of two files
        assert np.argwhere(run.bad_pixels).tolist() == [[0, 4, 5]]
        np.testing.assert_allclose(run.photon_energy_ev, HC_EV_ANGSTROM / 1.3)


def test_beam_centre_and_distance_place_the_panel(tmp_path: Path) -> None:
    write_master(tmp_path)
    with open_run(tmp_path / "run_master.h5") as run:
        geometry = run.geometry
    assert geometry is not None
    panel, fs, ss = project_rays(geometry, np.array([[0.0, 0.0, 1.0]]))
    assert (panel[0], fs[0], ss[0]) == (0, pytest.approx(14.0), pytest.approx(8.5))
    inv_d = peak_inv_d(geometry, np.array([0]), np.array([24.0]), np.array([8.5]), HC_EV_ANGSTROM / 1.3)
    assert inv_d[0] == pytest.approx(2 * np.sin(0.5 * np.arctan2(10 * 75e-6, 0.12)) / 1.3, rel=1e-9)


def test_modules_follow_their_chain_of_transformations(tmp_path: Path) -> None:
    write_master(tmp_path, modules=True)
    with open_run(tmp_path / "run_master.h5") as run:
        assert run.stack_shape == (2, HEIGHT, 15)
        geometry = run.geometry
    assert geometry is not None
    zero = np.array([-0.5, -0.5])  # the corner of the first pixel
    corners = peak_positions_m(geometry, np.array([0, 1]), zero, zero)
    np.testing.assert_allclose(corners, [[1e-3, 0, 0.2], [0, 1e-3, 0.2]], atol=1e-12)
    np.testing.assert_allclose(geometry.panels[1].fs_vec, (0, -1, 0), atol=1e-12)
    np.testing.assert_allclose(geometry.panels[1].ss_vec, (1, 0, 0), atol=1e-12)


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    write_master(tmp_path)
    (tmp_path / "run_data_000001.h5").unlink()
    with pytest.raises(RunError, match=r"a linked file is missing \(run_data_000001.h5\)"):
        open_run(tmp_path / "run_master.h5")


def test_a_master_without_metadata_still_gives_its_frames(tmp_path: Path) -> None:
    frames = write_master(tmp_path)
    with h5py.File(tmp_path / "run_master.h5", "a") as file:
        del file["entry/instrument/detector/beam_center_x"]
    with open_run(tmp_path / "run_master.h5") as run:
        assert run.geometry is None
        assert np.array_equal(run.read(0, 5)[:, 0], frames)
        assert any("beam_center_x is missing" in doubt for doubt in run.doubts)
