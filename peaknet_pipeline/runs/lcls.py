"""Runs of LCLS, read through psana (psana1's indexed access; part of LCLS's own environments, not on PyPI).

A run is named by a small YAML file among the raw runs, ``r0013.psana``::

    exp: mfxp22820
    run: 13
    detector: epix10k2M

Frames are calibrated by psana (pedestals, gain, common mode) and come as (frame, panel, ss, fs); an event without the
detector becomes a frame of NaN. Written from public examples of that interface and tested with a stand-in module only;
it has not run against the real psana.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import geometry_bad_pixels
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.runs.checksum import checksum_files
from peaknet_pipeline.runs.masks import combine_masks
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.runs.shot_values import usable_energies
from peaknet_pipeline.runs.slabs import map_panels, map_plain
from peaknet_pipeline.runs.sources import FrameSource
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, RunInfo

FORMAT = "lcls"
SUFFIX = ".psana"
NEEDED = ("exp", "run", "detector")
MASKS = {"calib": True, "status": True, "edges": True, "central": True}
"""What psana's own mask of an area detector is asked to hold."""


@dataclass(frozen=True)
class PsanaRun:
    """An indexed psana run: its event times, in order, and the detector that is read."""

    path: Path
    run: Any
    times: tuple[Any, ...]
    detector: Any
    name: str

    def close(self) -> None:
        """Do nothing: psana closes its files itself."""


class PsanaFrames:
    """The frames of an area detector, sliced like a data set (frame, panel, ss, fs), float32.

    For a geometry without a panel dimension they are a slab (frame, panels·ss, fs), as Cheetah writes it.
    """

    chunks = None
    is_virtual = False
    dtype = np.dtype(np.float32)

    def __init__(self, opened: PsanaRun, *, as_slab: bool) -> None:
        self._opened = opened
        self.name = opened.name
        n_panels, n_ss, n_fs = self._frame_shape()
        frame = (n_panels * n_ss, n_fs) if as_slab else (n_panels, n_ss, n_fs)
        self.shape = (len(opened.times), *frame)
        self.ndim = len(self.shape)

    def __getitem__(self, selection: tuple[slice, ...]) -> FrameArray:
        """Read events one by one; psana has no reading by range."""
        frames, *window = selection
        chosen = range(*frames.indices(self.shape[0]))
        stack = np.full((len(chosen), *self.shape[1:]), np.nan, dtype=np.float32)
        for place, number in enumerate(chosen):
            image = self._image(number)
            if image is not None:
                stack[place] = image
        cut: FrameArray = stack[(slice(None), *window)]
        return np.ascontiguousarray(cut)

    def _image(self, number: int) -> Any:
        image = self._opened.detector.calib(self._opened.run.event(self._opened.times[number]))
        return None if image is None else np.asarray(image, dtype=np.float32).reshape(self.shape[1:])

    def _frame_shape(self) -> tuple[int, int, int]:
        for time in self._opened.times:
            image = self._opened.detector.calib(self._opened.run.event(time))
            if image is not None:
                n_panels, n_ss, n_fs = (1, *np.shape(image))[-3:]
                return int(n_panels), int(n_ss), int(n_fs)
        what = f"no event holds the detector {self.name!r}"
        raise RunError(what, where=self._opened.path, remedy="Check its name with psana's DetNames.")


def open_lcls_run(path: Path | str, geometry: Geometry | Path | str | None = None) -> Run:
    """Open the LCLS run that a ``.psana`` file names.

    Parameters
    ----------
    path : Path
        YAML with ``exp``, ``run`` and ``detector``.
    geometry : Geometry or path, optional
        CrystFEL geometry with a panel dimension, or of Cheetah's slab; without one each panel of psana's array is a panel.

    Raises
    ------
    RunError
        The file is malformed, psana is not there, the run has no events or the detector no data, or the geometry doesn't
        fit.

    """
    path = Path(path)
    named = read_lcls_name(path)
    if geometry is not None and not isinstance(geometry, Geometry):
        geometry = read_geometry(geometry)
    psana = _import_psana(path)
    opened = _open(psana, named, path)
    as_slab = geometry is not None and not any(panel.stack_index for panel in geometry.panels)
    frames = PsanaFrames(opened, as_slab=as_slab)
    slab_map = map_plain(frames.shape) if geometry is None else map_panels(frames.shape, geometry)
    source = FrameSource((frames,), slab_map, (0,), frames.shape[0])
    energy = _photon_energy(psana, opened, geometry)
    return _run(opened, source, geometry, energy, _bad_pixels(opened, source, geometry, frames.shape))


def read_lcls_name(path: Path) -> dict[str, Any]:
    """Read the file that names a run.

    Raises
    ------
    RunError
        It is missing, not YAML, or lacks a name.

    """
    if not path.is_file():
        raise RunError("no such file", where=path, remedy="Check the path.")
    from peaknet_pipeline.yaml_files import read_yaml  # a GPU machine without PyYAML reads the other formats

    names = read_yaml(path, error=RunError)
    if set(names) != set(NEEDED) or not str(names["exp"]).isalnum() or not isinstance(names["run"], int):
        raise RunError(
            "does not name an LCLS run", where=path, expected="exp, run (a number) and detector", found=names
        )
    return names


def _import_psana(path: Path) -> Any:
    try:
        import psana
    except ImportError as error:
        remedy = "Work in an LCLS environment (psana is not on PyPI), or convert the run to HDF5 or CXI."
        raise RunError("LCLS runs need psana", where=path, remedy=remedy) from error
    return psana


def _open(psana: Any, named: dict[str, Any], path: Path) -> PsanaRun:
    source = f"exp={named['exp']}:run={named['run']}:idx"
    try:
        run = next(iter(psana.DataSource(source).runs()))
        times = tuple(run.times())
        detector = psana.Detector(str(named["detector"]))
    except Exception as error:  # psana raises bare exceptions, too
        remedy = (
            "Check experiment, run and detector; psana2 (LCLS-II) has no indexed access: convert such a run."
        )
        raise RunError(f"psana cannot open {source} ({error})", where=path, remedy=remedy) from error
    if not times:
        raise RunError("the run has no events", where=path, found=source)
    return PsanaRun(path, run, times, detector, str(named["detector"]))


def _photon_energy(psana: Any, opened: PsanaRun, geometry: Geometry | None) -> Float64Array:
    """Return the energy of every shot, eV: the machine's where it was recorded, else the geometry's."""
    default = np.nan if geometry is None or geometry.photon_energy_ev is None else geometry.photon_energy_ev
    energy = np.full(len(opened.times), default, dtype=np.float64)
    beam = psana.Detector("EBeam")
    for number, time in enumerate(opened.times):
        shot = beam.get(opened.run.event(time))
        value = float(shot.ebeamPhotonEnergy()) if shot is not None else 0.0
        if np.isfinite(value) and value > 0:
            energy[number] = value
    return usable_energies(energy)


def _bad_pixels(
    opened: PsanaRun, source: FrameSource, geometry: Geometry | None, shape: tuple[int, ...]
) -> dict[str, BoolArray]:
    masks = {"geometry": geometry_bad_pixels(geometry)} if geometry is not None else {}
    good = opened.detector.mask(opened.run.run(), **MASKS)
    if good is not None:
        bad = (np.asarray(good) == 0).reshape(1, *shape[1:])
        stack = source.slab_map.to_stack(bad[source.slab_map.selection(0, 1)])
        masks["psana"] = np.asarray(stack[0], dtype=np.bool_)
    return masks


def _run(
    opened: PsanaRun,
    source: FrameSource,
    geometry: Geometry | None,
    energy: Float64Array,
    masks: dict[str, BoolArray],
) -> Run:
    no_mask = np.zeros(source.slab_map.stack_shape, dtype=np.bool_), ()
    bad_pixels, mask_sources = combine_masks(masks) if masks else no_mask
    info = RunInfo(
        path=opened.path,
        data_path=opened.name,
        file_format=FORMAT,
        n_frames=source.n_frames,
        stack_shape=source.slab_map.stack_shape,
        dtype="float32",
        photon_energy_ev=energy,
        geometry_path=geometry.source if geometry is not None else None,
        mask_path="psana" if "psana" in masks else None,
        checksum=checksum_files([opened.path]),
        size_bytes=opened.path.stat().st_size,
        files=(opened.path,),
    )
    if geometry is not None:
        geometry = resolve_geometry(geometry, photon_energy_ev=energy)
    return Run(
        opened,
        (source,),
        info=info,
        geometry=geometry,
        bad_pixels=bad_pixels,
        mask_sources=mask_sources,
        clen_m=None,
    )
