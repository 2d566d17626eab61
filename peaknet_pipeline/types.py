"""The vocabulary: arrays and the frozen records that the stages hand on; ``schemas`` declares the tables. Read this first.

Conventions held everywhere:

* A frame is a detector stack ``(n_panels, ss, fs)``: slow scan, fast scan.
* The centre of pixel (0, 0) of a panel is (0.0, 0.0).
* The laboratory frame is CrystFEL's: +z along the beam, +y up, right-handed; reciprocal vectors are in Å⁻¹ without 2π,
  ``q = (s_out - s_in) / λ``.
* A mask is called ``bad_pixels`` and is True where the pixel is bad.
* Frames are counted from 0 within a run.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

BoolArray: TypeAlias = npt.NDArray[np.bool_]
UInt8Array: TypeAlias = npt.NDArray[np.uint8]
IntArray: TypeAlias = npt.NDArray[np.int64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
FrameArray: TypeAlias = npt.NDArray[np.generic]

HC_EV_ANGSTROM = 12398.419843320026
"""Planck constant times speed of light, eV Å: wavelength_angstrom = HC_EV_ANGSTROM / energy_ev."""

LABEL_BACKGROUND, LABEL_PEAK, LABEL_IGNORE = 0, 1, 255
"""The three values of a label map."""

MAX_CXI_PEAKS = 2048
"""Peaks per frame that a CXI peak list holds."""


@dataclass(frozen=True)
class Panel:
    """One rectangular panel, described as in a CrystFEL geometry file.

    ``min_*`` and ``max_*`` (inclusive, pixels) are its window in the file's slab; ``stack_index`` holds the fixed indices of
    the data set's other dimensions (a module dimension), without the frame dimension. ``corner_x/y`` (pixels) is the
    laboratory position of the *corner* of pixel (0, 0); ``fs_vec`` and ``ss_vec`` (pixels) are the steps per pixel.
    ``clen_m`` is the camera length with ``coffset`` added. With ``adu_per_ev`` given, ``adu_per_photon`` follows from it and
    the photon energy. ``data_path`` is set where panels live in data sets of their own. ``max_adu`` is the value at which the
    panel saturates; such pixels stay good.
    """

    name: str
    min_fs: int
    max_fs: int
    min_ss: int
    max_ss: int
    corner_x: float
    corner_y: float
    fs_vec: tuple[float, float, float]
    ss_vec: tuple[float, float, float]
    pixel_size_m: float
    clen_m: float
    adu_per_photon: float = 1.0
    stack_index: tuple[int, ...] = ()
    coffset_m: float = 0.0
    group: str = ""
    adu_per_ev: float | None = None
    data_path: str | None = None
    max_adu: float | None = None


@dataclass(frozen=True)
class BadRegion:
    """A rectangle of bad pixels: in a panel's (or the slab's) fs/ss, inclusive, or in laboratory x/y (pixels)."""

    name: str
    panel: str | None
    is_fsss: bool
    min_a: float
    max_a: float
    min_b: float
    max_b: float


ALL_BITS = 0xFFFFFFFF
"""A mask without bits of its own: whatever isn't 0 is bad."""


@dataclass(frozen=True)
class MaskLayer:
    """A mask to read: HDF5 path, file (None: the run's own) and the bits that must be set (good) or unset (bad)."""

    path: str
    file: str | None = None
    good_bits: int = 0
    bad_bits: int = ALL_BITS


@dataclass(frozen=True)
class Geometry:
    """A detector as described by a geometry file.

    Panels of unequal size share a stack as large as the largest; what a panel doesn't fill counts as bad. ``*_path`` are
    HDF5 paths read per frame or run, with the unit of what is found there. ``dim_layout`` names the dimensions of the data
    set (``%`` frame, ``n`` fixed by ``Panel.stack_index``, ``ss``, ``fs``); empty: frame first where there is one more.
    ``text`` is the source file's text, for embedding in streams. ``groups`` are the detector's groups, each a name and its
    members, panels or groups; ``Panel.group`` is the lowest one that names the panel. ``clen_change_m`` (n_frames,), metres, is
    how much further than ``Panel.clen_m`` the detector stood in each frame of the run, NaN where that is not known; None:
    nowhere.
    """

    panels: tuple[Panel, ...]
    bad_regions: tuple[BadRegion, ...] = ()
    photon_energy_ev: float | None = None
    photon_energy_path: str | None = None
    clen_path: str | None = None
    data_path: str | None = None
    mask_path: str | None = None
    mask_good_bits: int = 0
    mask_bad_bits: int = ALL_BITS
    flag_less_than: float | None = None
    flag_more_than: float | None = None
    flag_equal: float | None = None
    text: str = ""
    source: Path | None = None
    dim_layout: tuple[str, ...] = ()
    photon_energy_unit: str = "eV"
    clen_unit: str = "mm"
    mask_file: str | None = None
    more_masks: tuple[MaskLayer, ...] = ()
    peak_list_path: str | None = None
    bandwidth: float | None = None
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    clen_change_m: Float64Array | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        """Return what the detector is in one line: panels, their size, camera length, photon energy."""
        panels, ss, fs = self.stack_shape
        lengths = [panel.clen_m for panel in self.panels]
        clen = f"{1e3 * lengths[0]:.2f} mm" if lengths and lengths[0] == lengths[0] else "unknown"
        energy = f"{self.photon_energy_ev:.1f} eV" if self.photon_energy_ev is not None else "unknown"
        name = self.source.name if self.source is not None else "without a file"
        return f"<Geometry {name}: {panels} panels of {ss} × {fs} pixels, camera length {clen}, photon energy {energy}>"

    @property
    def saturation_adu(self) -> float | None:
        """Least value at which pixels saturate or count as bad, by any panel's ``max_adu`` or ``flag_more_than``."""
        limits = [self.flag_more_than, *(panel.max_adu for panel in self.panels)]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Shape (n_panels, ss, fs) of a frame in memory."""
        return (
            len(self.panels),
            max(p.max_ss - p.min_ss + 1 for p in self.panels),
            max(p.max_fs - p.min_fs + 1 for p in self.panels),
        )


@dataclass(frozen=True)
class RunInfo:
    """What a raw run is, without its pixels."""

    path: Path
    data_path: str
    file_format: str
    n_frames: int
    stack_shape: tuple[int, int, int]
    dtype: str
    photon_energy_ev: Float64Array
    geometry_path: Path | None
    mask_path: str | None
    checksum: str
    size_bytes: int
    files: tuple[Path, ...] = ()
    """Every file that the frames come from, the run's own first."""


@dataclass(frozen=True)
class RunStatistics:
    """Per-pixel statistics over a run's frames, each (n_panels, ss, fs), in the run's own intensity unit."""

    mean: Float32Array
    std: Float32Array
    maximum: Float32Array
    n_frames: int

    def __repr__(self) -> str:
        """Return the shape, and what a glance at the pixels tells."""
        shape = " × ".join(map(str, self.mean.shape))
        middle, most = np.nanmedian(self.mean), np.nanmax(self.maximum)
        return f"<RunStatistics: {self.n_frames} frames of {shape} pixels; median of the mean {middle:.4g}, highest {most:.4g}>"


@dataclass(frozen=True)
class UnitCell:
    """A unit cell: lengths in Å, angles in degrees, lattice type and centring as in a CrystFEL ``.cell`` file."""

    a: float
    b: float
    c: float
    alpha: float
    beta: float
    gamma: float
    lattice_type: str = "triclinic"
    centering: str = "P"
    unique_axis: str = "*"

    def __str__(self) -> str:
        """Return the cell in one line: lattice, centring, lengths and angles."""
        lengths = f"{self.a:.1f} {self.b:.1f} {self.c:.1f} Å"
        return f"{self.lattice_type} {self.centering} {lengths} {self.alpha:.1f} {self.beta:.1f} {self.gamma:.1f}°"

    def __repr__(self) -> str:
        """Return the cell in one line."""
        return f"<UnitCell {self}>"
