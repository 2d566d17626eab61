"""Compressed frames are written whatever ``HDF5_PLUGIN_PATH`` holds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hdf5plugin
import pytest

from peaknet_pipeline.hdf5.compression import frame_compression

WRITE = """
{first}
import h5py, numpy as np
from peaknet_pipeline.hdf5.compression import frame_compression
from peaknet_pipeline.hdf5.new_file import new_hdf5
from pathlib import Path
frames = np.arange(6000, dtype=np.uint16).reshape(2, 50, 60)
with new_hdf5(Path("{path}")) as file:
    file.create_dataset("frames", data=frames, chunks=(1, 50, 60), **frame_compression())
    file.create_dataset("mask", data=frames, compression="gzip", shuffle=True)
with h5py.File("{path}") as file:
    assert (file["frames"][...] == frames).all() and file["frames"].id.get_storage_size() < 12000
"""


@pytest.mark.parametrize("first", ["", "import hdf5plugin", "import h5py; h5py.h5z.filter_avail(32008)"])
@pytest.mark.parametrize("kind", ["copies", "damaged"])
def test_frames_are_written_with_plugins_in_the_systems_folder(tmp_path, first, kind):
    folder = tmp_path / "plugins"
    folder.mkdir()
    for plugin in Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf*"):
        shutil.copy(plugin, folder) if kind == "copies" else (folder / plugin.name).write_bytes(b"no library")
    script = WRITE.format(first=first, path=tmp_path / "out.h5")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HDF5_PLUGIN_PATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_frames_are_compressed_by_bitshuffle_with_lz4():
    compression = frame_compression()
    assert compression["compression"] == 32008
    assert compression["compression_opts"] == (0, 2)
