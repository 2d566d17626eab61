"""What a run file says beside its pixels: photon energy and camera length per frame."""

import numpy as np

from peaknet_pipeline.errors import GeometryError, RunError
from peaknet_pipeline.geometry.crystfel_text import energy_ev
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.runs.formats import attribute_text
from peaknet_pipeline.types import Float64Array, Geometry

JOULE_EV = 1.0 / 1.602176634e-19
CONVENTIONAL_ENERGY = (
    ("/LCLS/photon_energy_eV", "eV"),
    ("/entry_1/instrument_1/source_1/photon_energy", "J"),
    ("/entry_1/instrument_1/source_1/energy", "J"),
    ("/entry/instrument/beam/incident_wavelength", "A"),
    ("/entry/instrument/beam/incident_energy", "eV"),
)
_UNITS = {"angstrom": "A", "å": "A", "ev": "eV", "kev": "keV", "j": "J"}
_METRES = {"mm": 1e-3, "m": 1.0}


def read_photon_energy(files: LinkedFiles, geometry: Geometry | None, n_frames: int) -> Float64Array:
    """Return the photon energy of each frame, (n_frames,), eV; NaN where neither geometry nor file knows it.

    The geometry's HDF5 path counts first, then its number, then the file's conventional places (LCLS, CXI in
    J, NeXus).

    Raises
    ------
    RunError
        What the geometry or file names is missing, of another length, or no possible energy.

    """
    if geometry is not None and geometry.photon_energy_path is not None:
        values = read_per_frame(files, geometry.photon_energy_path, n_frames)
        return _to_ev(values, geometry.photon_energy_unit, files, geometry.photon_energy_path)
    if geometry is not None and geometry.photon_energy_ev is not None:
        return np.full(n_frames, geometry.photon_energy_ev)
    for path, default in CONVENTIONAL_ENERGY:
        found = files.find(path)
        if found is not None:
            unit = _UNITS.get(attribute_text(found, "units").lower(), default)
            return _to_ev(read_per_frame(files, path, n_frames), unit, files, path)
    return np.full(n_frames, np.nan)


def read_clen(files: LinkedFiles, geometry: Geometry | None, n_frames: int) -> Float64Array | None:
    """Return the camera length of each frame, (n_frames,), metres, where the geometry leaves it to the file.

    Raises
    ------
    RunError
        The path is missing, of another length, or not finite.

    """
    if geometry is None or geometry.clen_path is None:
        return None
    values = read_per_frame(files, geometry.clen_path, n_frames) * _METRES[geometry.clen_unit]
    if not np.isfinite(values).all():
        raise RunError("camera length is not finite", where=files.path, found=geometry.clen_path)
    return values


def read_per_frame(files: LinkedFiles, path: str, n_frames: int) -> Float64Array:
    """Return a scalar or per-frame value, (n_frames,), float64.

    Raises
    ------
    RunError
        There is nothing numeric there, or its length is neither 1 nor the number of frames.

    """
    dataset = files.dataset(path)
    if dataset.dtype.kind not in "uif" or dataset.size not in (1, n_frames):
        found = f"{dataset.dtype} {dataset.shape}"
        raise RunError(
            f"{path} does not fit", where=files.path, expected=f"1 or {n_frames} numbers", found=found
        )
    try:
        values = np.asarray(read_whole(dataset), dtype=np.float64).ravel()
    except DAMAGE as error:
        raise RunError(f"{path} cannot be read ({error})", where=files.path) from error
    return np.broadcast_to(values, (n_frames,)).copy() if values.size == 1 else values


def _to_ev(values: Float64Array, unit: str, files: LinkedFiles, path: str) -> Float64Array:
    try:
        if unit == "J":
            return np.array([energy_ev(v * JOULE_EV, "eV") for v in values])
        return np.array([energy_ev(v, unit) for v in values])
    except GeometryError as error:
        raise RunError(f"{path}: {error.what}", where=files.path, found=error.found) from error
