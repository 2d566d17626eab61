"""What a run file says beside its pixels: photon energy and camera length per frame."""

from collections.abc import Iterator

import numpy as np

from peaknet_pipeline.errors import GeometryError, RunError
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.runs.frame_values import read_per_frame
from peaknet_pipeline.runs.nexus_layout import find_beams, find_detector
from peaknet_pipeline.runs.series import FrameOrder
from peaknet_pipeline.runs.shot_values import camera_lengths_in_m, energies_in_ev
from peaknet_pipeline.runs.units import photon_energies_ev
from peaknet_pipeline.types import Float64Array, Geometry

CONVENTIONAL_ENERGY = (
    ("/LCLS/photon_energy_eV", "eV"),
    ("/entry_1/instrument_1/source_1/photon_energy", "J"),
    ("/entry_1/instrument_1/source_1/energy", "J"),
)
NEXUS_ENERGY = (("incident_wavelength", "Å"), ("incident_energy", "eV"))


def read_photon_energy(files: LinkedFiles, geometry: Geometry | None, order: FrameOrder) -> Float64Array:
    """Return the photon energy of each frame, (n_frames,), eV; NaN where neither geometry nor file knows a possible one.

    The geometry's HDF5 path counts first, then its number, then the file's conventional places (LCLS, CXI in
    J, NeXus).

    Raises
    ------
    RunError
        What the geometry or file names is missing or of another length, or its unit is unknown.

    """
    if geometry is not None and geometry.photon_energy_path is not None:
        values = read_per_frame(files, geometry.photon_energy_path, order)
        return _to_ev(values, geometry.photon_energy_unit, files, geometry.photon_energy_path)
    if geometry is not None and geometry.photon_energy_ev is not None:
        return np.full(order.n_frames, geometry.photon_energy_ev)
    place = next(_conventional_places(files), None)
    if place is None:
        return np.full(order.n_frames, np.nan)
    path, default = place
    values = read_per_frame(files, path, order)
    energies = photon_energies_ev(files, files.dataset(path), values, default=default)
    return _to_ev(energies, "eV", files, path)


def _conventional_places(files: LinkedFiles) -> Iterator[tuple[str, str]]:
    """Yield where files keep their photon energy or wavelength, and its unit where none is written."""
    yield from ((path, unit) for path, unit in CONVENTIONAL_ENERGY if files.find(path) is not None)
    for beam in find_beams(files):
        for name, unit in NEXUS_ENERGY:
            if files.find(f"{beam}/{name}") is not None:
                yield f"{beam}/{name}", unit
    detector = find_detector(files)
    if detector is not None and files.find(f"{detector}/detectorSpecific/photon_energy") is not None:
        yield f"{detector}/detectorSpecific/photon_energy", "eV"


def read_clen(files: LinkedFiles, geometry: Geometry | None, order: FrameOrder) -> Float64Array | None:
    """Return the camera length of each frame, (n_frames,), metres, where the geometry leaves it to the file.

    NaN where a frame's isn't possible.

    Raises
    ------
    RunError
        The path is missing or of another length.

    """
    if geometry is None or geometry.clen_path is None:
        return None
    return camera_lengths_in_m(read_per_frame(files, geometry.clen_path, order), geometry)


def _to_ev(values: Float64Array, unit: str, files: LinkedFiles, path: str) -> Float64Array:
    """Return energies or wavelengths in eV; NaN where they are no numbers above zero, or placeholders."""
    try:
        return energies_in_ev(values, unit)
    except GeometryError as error:
        raise RunError(f"{path}: {error.what}", where=files.path, found=error.found) from error
