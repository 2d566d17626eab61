"""New HDF5 files are whole or absent, and a disk that fills at any point is an error, not the end of the process."""

import errno
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from peaknet_pipeline.hdf5.new_file import new_hdf5

FILLED = """
import errno, resource, sys
from pathlib import Path
import h5py, hdf5plugin, numpy as np
from peaknet_pipeline.hdf5.new_file import new_hdf5

path, noise = Path(sys.argv[1]), np.random.default_rng(3)
for limit in range(0, 400_000, 13_001):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with new_hdf5(path) as file:
            options = {"maxshape": (None, 32, 32), "chunks": (1, 32, 32)}
            images = file.create_dataset("a/images", (0, 32, 32), "f4", **options, **hdf5plugin.Bitshuffle())
            growing = {"maxshape": (None, 512), "chunks": (4, 512)}
            lists = [file.create_dataset(f"list{i}", (0, 512), "f4", **growing) for i in range(4)]
            for row in range(30):
                for data in (images, *lists):
                    data.resize(row + 1, axis=0)
                    data[row] = noise.random(data.shape[1:])
        outcome = "whole"
    except OSError as error:
        outcome = f"{errno.errorcode[error.errno]} {error.filename}"
    print(limit, outcome, sorted(child.name for child in path.parent.iterdir()))
    path.unlink(missing_ok=True)
"""


def test_a_disk_that_fills_anywhere_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    """The library's own driver ends in a segmentation fault here."""
    path = tmp_path / "new.h5"
    done = subprocess.run(
        [sys.executable, "-c", FILLED, str(path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = [line.partition(" ")[2] for line in done.stdout.splitlines()]
    full = f"{errno.errorcode[errno.EFBIG]} {path} []"
    assert set(outcomes) == {full, "whole ['new.h5']"}
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome.startswith("whole"))


def test_a_file_reads_back_and_an_exception_leaves_the_old_one(tmp_path: Path) -> None:
    path, values = tmp_path / "new.h5", np.arange(100_000)
    with new_hdf5(path) as file:
        file.create_dataset("a/values", data=values, chunks=(1000,), compression="gzip")
        file["a/values"][:3] = 7  # read back, changed and written again
        assert not path.exists()
    with pytest.raises(KeyError), new_hdf5(path) as file:
        file["other"] = 1
        raise KeyError
    values[:3] = 7
    with h5py.File(path) as file:
        assert list(file) == ["a"]
        np.testing.assert_array_equal(file["a/values"], values)
    assert list(tmp_path.iterdir()) == [path]


DROPPED = """
import resource, sys
from pathlib import Path
import numpy as np
from peaknet_pipeline.hdf5.new_file import new_hdf5

def fill(file):
    data = file.create_dataset("images", (100, 256, 256), "f4", chunks=(1, 256, 256))
    for row in range(100):
        data[row] = np.full((256, 256), row)
        rows.append(row)
        file.check_written()

rows = []
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    with new_hdf5(Path(sys.argv[1])) as file:
        fill(file)
except OSError as error:
    print(error.filename, len(rows) < 80)
"""


def test_data_sets_that_go_out_of_use_on_a_full_disk_end_in_order(tmp_path: Path) -> None:
    """An exception while the library flushes a data set that is taken apart would be lost, and end in a crash later."""
    done = subprocess.run(
        [sys.executable, "-c", DROPPED, str(tmp_path / "new.h5")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{tmp_path / 'new.h5'} True\n")
    assert list(tmp_path.iterdir()) == []
