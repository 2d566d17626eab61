"""Zarr stores as the zarr package writes them are read frame by frame; what cannot be read is refused by its name."""

import json
from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import parse_geometry
from peaknet_pipeline.runs.cxi import write_cxi_peaks
from peaknet_pipeline.runs.inspect import inspect_path
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline_tests.runs.files import CXI_DATA, WIDTH, module_geometry, random_stack, slab_geometry

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")
FRAMES = random_stack(7)
SLABS = FRAMES.reshape(7, -1, WIDTH)
V2_CODECS = {
    "none": None,
    "blosc": numcodecs.Blosc("lz4", shuffle=numcodecs.Blosc.BITSHUFFLE),
    "zstd": numcodecs.Zstd(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
}
V3_CODECS = {
    "none": None,
    "blosc": zarr.codecs.BloscCodec(cname="zstd", shuffle="shuffle"),
    "zstd": zarr.codecs.ZstdCodec(level=3, checksum=True),
    "gzip": zarr.codecs.GzipCodec(),
}


def write(path: Path, data: np.ndarray, **options: object) -> Path:
    """Write one array, in chunks that divide neither the frames nor their rows."""
    options = {"chunks": (2, 5, *data.shape[2:]), "compressors": None, **options}
    array = zarr.create_array(str(path), shape=data.shape, dtype=data.dtype, **options)
    array[...] = data
    return path


@pytest.mark.parametrize("codec", V2_CODECS)
def test_format_2_is_read(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "run.zarr", SLABS, zarr_format=2, compressors=V2_CODECS[codec])
    with open_run(path, slab_geometry()) as run:
        assert run.info.file_format == "zarr"
        assert np.array_equal(run.read(0, 7), FRAMES)
        assert np.array_equal(run.read(3, 4), FRAMES[3:4])
        assert run.dtype == FRAMES.dtype


@pytest.mark.parametrize("codec", V3_CODECS)
def test_format_3_is_read(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "run.zarr", SLABS, zarr_format=3, compressors=V3_CODECS[codec])
    with open_run(path, slab_geometry()) as run:
        assert np.array_equal(run.read(0, 7), FRAMES)
        assert np.array_equal(run.read(1, 6), FRAMES[1:6])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", [">i4", "<f4", "u1"])
def test_other_types_and_byte_orders_and_chunk_keys(tmp_path: Path, zarr_format: int, dtype: str) -> None:
    data = SLABS.astype(dtype)
    separator = {2: "/", 3: "."}[zarr_format]
    name = {2: "v2", 3: "default"}[zarr_format]
    keys = {"name": name, "separator": separator}
    path = write(tmp_path / "run.zarr", data, zarr_format=zarr_format, chunk_key_encoding=keys)
    with open_run(path, slab_geometry()) as run:
        assert run.dtype == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(run.read(2, 7), FRAMES[2:7])


def test_chunks_that_were_never_written_are_the_fill_value(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "run.zarr"), shape=SLABS.shape, dtype="f4", chunks=(1, 18, 8), fill_value=np.nan
    )
    array[2] = SLABS[2]
    with open_run(tmp_path / "run.zarr", slab_geometry()) as run:
        assert np.isnan(run.read(0, 2)).all()
        assert np.array_equal(run.read(2, 3), FRAMES[2:3])


def test_a_group_holds_frames_values_and_masks_at_the_geometrys_paths(tmp_path: Path) -> None:
    root = zarr.create_group(str(tmp_path / "r0003.zarr"))
    for name, data in (
        (CXI_DATA, FRAMES),
        ("/energy", np.linspace(9000, 9006, 7)),
        ("/distance", np.full(7, 120.0)),
        ("/mask", (FRAMES[0] * 0 + (np.arange(8) == 3)).astype("u1")),
    ):
        root.create_array(name.strip("/"), data=data)
    text = (
        module_geometry()
        .text.replace("= 9500 eV", "= /energy eV")
        .replace("clen = 0.1 m", "clen = /distance mm")
    )
    geometry = parse_geometry("mask0_data = /mask\nmask0_goodbits = 0\nmask0_badbits = 1\n" + text)
    with open_run(tmp_path / "r0003.zarr", geometry) as run:
        assert np.array_equal(run.read(0, 7), FRAMES)
        np.testing.assert_allclose(run.photon_energy_ev, np.linspace(9000, 9006, 7))
        assert run.clen_m is not None
        np.testing.assert_allclose(run.clen_m, 0.12)
        assert set(np.argwhere(run.bad_pixels)[:, 2]) == {3}
        write_cxi_peaks(tmp_path / "peaks.cxi", empty_table(PEAKS), run)
    with open_run(tmp_path / "peaks.cxi", tmp_path / "peaks.geom") as copy:
        assert np.array_equal(copy.read(0, 7), FRAMES)
    with open_run(tmp_path / "r0003.zarr") as run:  # the largest stack, where nothing names it
        assert np.array_equal(run.read(0, 7), FRAMES)


def test_a_store_is_inspected(tmp_path: Path) -> None:
    report = inspect_path(write(tmp_path / "run.zarr", SLABS), slab_geometry())
    assert (report.kind, report.facts["frames"], report.problems) == ("zarr", 7, [])
    assert inspect_path(tmp_path / "run.zarr", slab_geometry(), data_path="/gone").is_usable


def test_a_damaged_or_short_chunk_is_refused(tmp_path: Path) -> None:
    for format_, codec in ((2, None), (2, numcodecs.Blosc()), (3, zarr.codecs.ZstdCodec())):
        path = write(
            tmp_path / f"run{format_}{codec is None}.zarr",
            SLABS,
            zarr_format=format_,
            compressors=codec,
            overwrite=True,
        )
        chunk = next(f for f in sorted(path.rglob("*")) if f.is_file() and f.name[0].isdigit())
        chunk.write_bytes(chunk.read_bytes()[:-7])
        with open_run(path, slab_geometry()) as run, pytest.raises(RunError, match="damaged"):
            run.read(0, 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compressor": {"id": "pickle"}}, "a compression is not read, expected blosc.* found pickle"),
        ({"filters": [{"id": "delta", "dtype": "<u2"}]}, "a filter is not read"),
        ({"dtype": "|O"}, "the array is not numeric"),
        ({"order": "F"}, "the order of elements is not read"),
        ({"chunks": [10**6, 10**6, 8]}, "the array's chunks are absurd"),
        ({"chunks": [2, 5]}, "the array's chunks are absurd"),
        ({"shape": "many"}, "Zarr metadata are damaged"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = write(tmp_path / "run.zarr", SLABS, zarr_format=2)
    metadata = path / ".zarray"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | change))
    with pytest.raises(RunError, match=words):
        open_run(path, slab_geometry())


def test_frames_that_are_declared_and_not_stored_are_refused(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "run.zarr"), shape=(10_000_000, 18, 8), dtype="u2", chunks=(1, 18, 8))
    with pytest.raises(RunError, match="declares far more than it stores"):
        open_run(tmp_path / "run.zarr", slab_geometry())


def test_shards_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "run.zarr", SLABS, chunks=(1, 18, 8), shards=(7, 18, 8))
    with pytest.raises(RunError, match=r"a chain of codecs is not read, found .*sharding_indexed"):
        open_run(path, slab_geometry())


def test_a_chunk_that_is_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "run.zarr", SLABS, zarr_format=2)
    (path / "0.0.0").rename(tmp_path / "secret")
    (path / "0.0.0").symlink_to(tmp_path / "secret")
    with (
        open_run(path, slab_geometry()) as run,
        pytest.raises(RunError, match="link out of the allowed folders"),
    ):
        run.read(0, 1)
