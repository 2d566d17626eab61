"""Files made to mislead: sound files of every storage, and damage where HDF5 and its filters look for lengths and places."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from peaknet_pipeline_tests.runs.files import CXI_DATA

N, HEIGHT, WIDTH = 4, 18, 8
SHAPE, CHUNK = (N, HEIGHT, WIDTH), (1, HEIGHT, WIDTH)
RESULT = "/entry_1/result_1"
ENERGY, MASK = "/LCLS/photon_energy_eV", "/entry_1/data_1/mask"
EXTREMES = (0, 1, 7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)

STORAGE: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "gzip with shuffle and checksum": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "checksum": {"fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "szip": {"compression": "szip", "compression_opts": ("nn", 4)},
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle()),
    "bitshuffle-lz4 with checksum": {**hdf5plugin.Bitshuffle(), "fletcher32": True},
    "bitshuffle-zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
    "shuffle before bitshuffle": {**hdf5plugin.Bitshuffle(), "shuffle": True},
    "blosc": dict(hdf5plugin.Blosc(cname="zstd")),
    "blosclz": dict(hdf5plugin.Blosc(cname="blosclz", shuffle=2)),
    "blosc2": dict(hdf5plugin.Blosc2()),
    "lz4": dict(hdf5plugin.LZ4()),
    "lz4 in small blocks": dict(hdf5plugin.LZ4(nbytes=64)),
    "zstd": dict(hdf5plugin.Zstd()),
    "bzip2": dict(hdf5plugin.BZip2()),
}
WAYS = ("plain", "userblock", "virtual", "virtual elsewhere", "virtual of virtual", "linked", "numbered")


@dataclass(frozen=True)
class Draw:
    """How one hostile file is made: everything follows from its number."""

    number: int
    storage: str
    way: str
    damage: str


def draw(number: int) -> tuple[Draw, np.random.Generator]:
    """Return what the file of a number is, and the generator of its damage."""
    rng = np.random.default_rng([20, number])
    storage, way = rng.choice(list(STORAGE)), rng.choice(WAYS)
    return Draw(number, str(storage), str(way), str(rng.choice(list(DAMAGE)))), rng


def write_hostile(folder: Path, number: int) -> Path:
    """Write the file of a number, and what it leads to, into an empty folder; return its path."""
    drawn, rng = draw(number)
    path = write_sound(folder, drawn.storage, drawn.way, rng)
    DAMAGE[drawn.damage](path, folder, rng)
    return path


def write_sound(folder: Path, storage: str, way: str, rng: np.random.Generator) -> Path:
    """Write a run with mask, energies and peak list, whose every data set is stored in one manner."""
    path = folder / "run.cxi"
    inner = folder / "inner.h5"
    options = STORAGE[storage]
    own = way in ("plain", "userblock", "virtual")
    with h5py.File(path, "w", userblock_size=512 if way == "userblock" else 0) as file:
        _write_side_data(file, options, rng)
        if own:
            _write_frames(file, CXI_DATA if way != "virtual" else "/source", options, rng)
    if not own:
        with h5py.File(inner, "w") as file:
            _write_frames(file, "/source", options, rng)
    _lead_to_frames(path, inner, way)
    return path


def _write_frames(file: Any, name: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    frames = rng.poisson(3.0, SHAPE).astype(np.uint16)
    file.create_dataset(name, data=frames, chunks=CHUNK, maxshape=(None, HEIGHT, WIDTH), **options)


def _write_side_data(file: Any, options: dict[str, Any], rng: np.random.Generator) -> None:
    energies = np.full(N, 9500.0)
    mask = (rng.random((HEIGHT, WIDTH)) < 0.1).astype(np.uint8)
    lists = rng.uniform(0, 7, (N, 16)).astype(np.float32)
    file.create_dataset(ENERGY, data=energies, chunks=(N,), **options)
    file.create_dataset(MASK, data=mask, chunks=mask.shape, **options)
    file.create_dataset(f"{RESULT}/nPeaks", data=rng.integers(0, 9, N), chunks=(N,), **options)
    for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
        file.create_dataset(f"{RESULT}/{name}", data=lists, chunks=(2, 16), **options)
    for name, shape in (("pedestal", (3, 1, HEIGHT, WIDTH)), ("gain", (3, 1, HEIGHT, WIDTH))):
        file.create_dataset(name, data=np.ones(shape, np.float32), chunks=shape, **options)
    file[MASK].attrs["meaning"] = "text of variable length"
    file.attrs["simulated"] = "{}"


def _lead_to_frames(path: Path, inner: Path, way: str) -> None:
    with h5py.File(path, "a") as file:
        if way.startswith("virtual"):
            place = "." if way == "virtual" else inner.name
            if way == "virtual of virtual":
                _map(file, "/middle", place, "/source")
                place, source = ".", "/middle"
            else:
                source = "/source"
            _map(file, CXI_DATA, place, source)
        elif way == "linked":
            file[CXI_DATA] = h5py.ExternalLink(inner.name, "/source")
        elif way == "numbered":
            file["/entry/data/data_000001"] = h5py.ExternalLink(inner.name, "/source")
            _describe_detector(file)


def _describe_detector(file: Any) -> None:
    """Say what NXmx says, with units as text of variable length."""
    detector = "/entry/instrument/detector"
    for name, value, unit in (
        ("beam_center_x", 4.0, "pixel"),
        ("beam_center_y", 9.0, "pixel"),
        ("distance", 0.1, "m"),
        ("x_pixel_size", 75e-6, "m"),
        ("y_pixel_size", 75e-6, "m"),
    ):
        file[f"{detector}/{name}"] = value
        file[f"{detector}/{name}"].attrs["units"] = unit
    for group, kind in (
        ("/entry", "NXentry"),
        ("/entry/instrument", "NXinstrument"),
        (detector, "NXdetector"),
    ):
        file[group].attrs["NX_class"] = kind


def _map(file: Any, name: str, place: str, source: str) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.uint16)
    layout[:2] = h5py.VirtualSource(place, source, SHAPE)[:2]
    layout[2:] = h5py.VirtualSource(place, source, SHAPE)[2:]
    file.create_virtual_dataset(name, layout)


def _chunked(folder: Path, rng: np.random.Generator) -> tuple[Path, str]:
    """Choose one chunked data set of the folder's files."""
    found: list[tuple[Path, str]] = []

    def note(path: Path) -> Callable[[str, Any], None]:
        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and not node.is_virtual and node.chunks:
                found.extend([(path, name)] * (8 if node.ndim == 3 else 1))

        return visit

    for path in sorted(folder.iterdir()):
        with h5py.File(path) as file:
            file.visititems(note(path))
    return found[rng.integers(len(found))]


def damage_chunk(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Store other bytes as a chunk: lengths that lie, cut or longer content, flipped bits, another filter's chunk."""
    where, name = _chunked(folder, rng)
    with h5py.File(where, "a") as file:
        data = file[name]
        origin = tuple(
            int(rng.integers(0, n, endpoint=False) // c * c)
            for n, c in zip(data.shape, data.chunks, strict=True)
        )
        mask, stored = data.id.read_direct_chunk(origin)
        mask = int(rng.choice([mask, mask, mask, 1, 2, 3, 2**31]))
        lying = lying_chunk(stored, rng)
        if not data.id.get_create_plist().get_nfilters():  # its chunks have no length of their own
            lying = lying[: len(stored)].ljust(len(stored))
        data.id.write_direct_chunk(origin, lying, filter_mask=mask)


def lying_chunk(stored: bytes, rng: np.random.Generator) -> bytes:
    """Return a chunk whose lengths, or whose length, lie."""
    data = bytearray(stored)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(6)
        place = int(rng.choice([0, 4, 8, 12, 16, 24, 30, rng.integers(0, max(len(data), 1))]))
        if kind == 0:
            del data[rng.integers(len(data) + 1) :]
        elif kind == 1:
            data += rng.bytes(int(rng.choice([1, 4, 100, 5000])))
        elif kind == 2 and data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            data[place : place + 4] = struct.pack(rng.choice([">I", "<I"]), _extreme(rng) % 2**32)
        elif kind == 4:
            data[place : place + 8] = struct.pack(rng.choice([">Q", "<Q"]), _extreme(rng))
        else:
            near = max(0, len(data) + int(rng.integers(-3, 4)))
            data[place : place + 4] = struct.pack(rng.choice([">I", "<I"]), near)
    return bytes(data) or b"\0"


def damage_filters(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Overwrite a filter's number or parameters where the data set declares them."""
    where, name = _chunked(folder, rng)
    with h5py.File(where) as file:
        properties = file[name].id.get_create_plist()
        filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    if not filters:
        return
    number, _, values, _ = filters[rng.integers(len(filters))]
    content = bytearray(where.read_bytes())
    old = struct.pack(f"<{len(values)}I", *values)
    places = _places(content, old if len(old) >= 8 and rng.random() < 0.6 else struct.pack("<H", number))
    if places:
        place = places[rng.integers(len(places))] + 4 * int(rng.integers(0, max(len(values), 1)))
        new = struct.pack("<I", int(rng.choice([*EXTREMES[:8], 32000, 32001, 32004, 32008, 32015, 32026])))
        width = int(rng.choice([2, 4]))
        content[place : place + width] = new[:width]
        where.write_bytes(content)


def damage_dimensions(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Overwrite a dimension of frames or of chunks, or a size, with a number beyond all measure."""
    where = sorted(folder.iterdir())[rng.integers(len(list(folder.iterdir())))]
    content = bytearray(where.read_bytes())
    old = int(rng.choice([N, HEIGHT, WIDTH, 2, 16, HEIGHT * WIDTH * 2]))
    width = int(rng.choice([4, 8]))
    places = _places(content, old.to_bytes(width, "little"))
    for _ in range(int(rng.integers(1, 4))):
        if places:
            place = places[rng.integers(len(places))]
            content[place : place + width] = (_extreme(rng) % 256**width).to_bytes(width, "little")
    where.write_bytes(content)


def damage_metadata(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Flip bits, overwrite with extreme numbers and swap stretches in what is no pixel."""
    files = sorted(folder.iterdir())
    where = files[rng.integers(len(files))]
    data = bytearray(where.read_bytes())
    for _ in range(rng.integers(1, 8)):
        place = int(rng.integers(min(len(data), 9000) - 8))
        kind = rng.integers(3)
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place : place + 8] = _extreme(rng).to_bytes(8, "little")
        else:
            other = int(rng.integers(len(data) - 8))
            data[place : place + 8] = data[other : other + 8]
    where.write_bytes(data)


def declare_more(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Declare more frames, peaks or values than are stored."""
    where, name = _chunked(folder, rng)
    with h5py.File(where, "a") as file:
        data = file[name]
        options = {"chunks": data.chunks, "dtype": data.dtype, "maxshape": (None,) * data.ndim}
        shape = list(data.shape)
        shape[rng.integers(len(shape))] = int(rng.choice([10**5, 10**6, 19_999_999, 10**9, 2**40]))
        del file[name]
        file.create_dataset(name, tuple(shape), **options)[(0,) * len(shape)] = 1


def overlap_virtual(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Nest virtual data sets whose parts lie over each other, or that lead to themselves, or out of the folder."""
    depth, width = int(rng.integers(1, 20)), int(rng.integers(1, 5))
    with h5py.File(path, "a") as file:
        if CXI_DATA in file:
            file.move(CXI_DATA, "/v0") if not isinstance(
                file.get(CXI_DATA, getlink=True), h5py.ExternalLink
            ) else None
        if "/v0" not in file:
            file["/v0"] = np.zeros(SHAPE, np.uint16)
        for level in range(1, depth + 1):
            layout = h5py.VirtualLayout(SHAPE, np.uint16 if rng.random() < 0.8 else np.float32)
            for _ in range(width):
                source = rng.choice([".", ".", ".", ".", ".", "../outside.h5", "inner.h5", "none.h5"])
                to = level - 1 if rng.random() < 0.95 else level
                layout[:] = h5py.VirtualSource(str(source), f"/v{to}", SHAPE, dtype=np.uint16)
            file.create_virtual_dataset(f"/v{level}", layout)
        if CXI_DATA in file or file.get(CXI_DATA, getlink=True) is not None:
            del file[CXI_DATA]
        file[CXI_DATA] = file[f"/v{depth}"]


def tangle_links(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Add hard links of groups to themselves, chains and circles of soft links, links to other files."""
    with h5py.File(path, "a") as file:
        groups = [file["/"], file["/LCLS"], file[RESULT], file.require_group("/fan")]
        for i in range(int(rng.integers(1, 200))):
            group, other = groups[rng.integers(4)], groups[rng.integers(4)]
            kind = rng.integers(4)
            if kind == 0:
                group[f"g{i}"] = other
            elif kind == 1:
                group[f"g{i}"] = h5py.SoftLink(f"{other.name.rstrip('/')}/g{i + 1}")
            elif kind == 2:
                group[f"g{i}"] = h5py.SoftLink(f"g{max(i - 1, 0)}")
            else:
                group[f"g{i}"] = h5py.ExternalLink(
                    str(rng.choice(["run.cxi", "../outside.h5", "none.h5"])), "/"
                )


DAMAGE: dict[str, Callable[[Path, Path, np.random.Generator], None]] = {
    "chunk": damage_chunk,
    "chunk again": damage_chunk,
    "chunk once more": damage_chunk,
    "filters": damage_filters,
    "dimensions": damage_dimensions,
    "metadata": damage_metadata,
    "declared": declare_more,
    "virtual": overlap_virtual,
    "links": tangle_links,
}


def _extreme(rng: np.random.Generator) -> int:
    return EXTREMES[rng.integers(len(EXTREMES))]


def _places(content: bytes | bytearray, wanted: bytes) -> list[int]:
    places, start = [], 0
    while len(places) < 200 and (start := content.find(wanted, start)) >= 0:
        places.append(start)
        start += 1
    return places
