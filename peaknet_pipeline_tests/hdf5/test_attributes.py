"""Attributes are read whole or refused; a damaged heap of texts ends no process but the one that tries it."""

import ctypes
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.attributes import attribute_text, read_attribute, read_attributes, write_text
from peaknet_pipeline.hdf5.files import LinkedFiles


def test_text_is_read_back_however_it_was_stored(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["variable"], file.attrs["number"] = "µm", 3.5
        write_text(file, "fixed", "µm")
        file.attrs["list"] = np.array(["mm"], dtype=object)
    with LinkedFiles(tmp_path / "x.h5") as files:
        assert read_attributes(files.file).keys() == {"variable", "number", "fixed", "list"}
        assert [attribute_text(files.file, n) for n in ("variable", "fixed", "list", "none")] == [
            "µm",
            "µm",
            "mm",
            "",
        ]
        assert read_attribute(files.file, "number") == 3.5
        assert read_attribute(files.file, "none", "default") == "default"


def test_a_heap_of_texts_without_end_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["units"] = "mm"
    content = bytearray((tmp_path / "x.h5").read_bytes())
    first = (
        content.index(b"GCOL") + 16
    )  # after signature, version and size: number, references and size of the first text
    content[first + 8 : first + 16] = (2**64 - 16).to_bytes(8, "little")
    (tmp_path / "x.h5").write_bytes(content)
    started = time.process_time()
    with pytest.raises(RunError, match=r"HDF5 itself fails on the file \(SIG"):
        LinkedFiles(tmp_path / "x.h5")
    assert time.process_time() - started < 2.0


def test_a_group_whose_names_are_compressed_is_refused(tmp_path: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    mapped = Path("/proc/self/maps").read_text().split("\n")
    library = ctypes.CDLL(next(line.split(maxsplit=5)[-1] for line in mapped if "/libhdf5-" in line))
    library.H5Pset_deflate.argtypes = [ctypes.c_int64, ctypes.c_uint]
    assert library.H5Pset_deflate(properties.id, 1) >= 0
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        h5py.h5g.create(file.id, b"g", gcpl=properties)
        file["g/values"] = [1, 2]
    with LinkedFiles(tmp_path / "x.h5") as files:
        with pytest.raises(RunError, match="stored with filters"):
            files.find("/g/values")
        assert [name for name, _ in files.datasets()] == []


@pytest.mark.parametrize("growing", [False, True])
def test_a_file_whose_root_is_damaged_is_refused(tmp_path: Path, growing: bool) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        root = h5py.h5o.get_info(file.id).addr
        file["x"] = 1
    content = bytearray((tmp_path / "x.h5").read_bytes())
    content[root : root + 4] = b"\xff\x07\x00\xff"
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.h5"):
        LinkedFiles(tmp_path / "x.h5", growing=growing).find("/x")
