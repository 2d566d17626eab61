"""Label files: round trip, content hash, nothing half-written, damaged files."""

import h5py
import numpy as np
import pytest

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.store import (
    labels_digest,
    open_labels,
    read_labels,
    write_labels,
)

SHAPE = (2, 8, 6)


def make_maps(n=3, seed=0):
    return np.random.default_rng(seed).choice(np.array([0, 1, 255], np.uint8), (n, *SHAPE))


def write(path, maps, frames=(4, 7, 19), provenance=None):
    rows = ((f, m, int((m == 1).sum())) for f, m in zip(frames, maps, strict=True))
    return write_labels(path, rows, SHAPE, provenance=provenance or {"cell": "lyso.cell"})


def test_maps_frames_and_provenance_come_back(tmp_path):
    maps = make_maps()
    assert write(tmp_path / "r.h5", maps) == 3
    frames, stored = read_labels(tmp_path / "r.h5")
    np.testing.assert_array_equal(stored, maps)
    assert frames.tolist() == [4, 7, 19]
    with open_labels(tmp_path / "r.h5") as file:
        assert file.provenance == {"cell": "lyso.cell"}
        assert file.n_peaks.tolist() == (maps == 1).sum(axis=(1, 2, 3)).tolist()
        np.testing.assert_array_equal(file.read(1), maps[1])


def test_each_frame_is_one_compressed_chunk(tmp_path):
    write_labels(tmp_path / "r.h5", [(0, np.zeros((4, 200, 200), np.uint8), 0)], (4, 200, 200), provenance={})
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["labels"].chunks == (1, 4, 200, 200)
        assert file["labels"].id.get_storage_size() < 4 * 200 * 200 / 20


def test_the_digest_follows_the_content(tmp_path):
    maps = make_maps()
    changed = maps.copy()
    changed[2, 0, 0, 0] ^= 1
    for name, content in (("a", maps), ("b", maps), ("c", changed)):
        write(tmp_path / name, content)
    assert labels_digest(tmp_path / "a") == labels_digest(tmp_path / "b") != labels_digest(tmp_path / "c")


def interrupted():
    yield 0, make_maps()[0], 1
    raise RuntimeError("interrupted")


def test_a_failure_leaves_nothing_behind_and_the_old_file_alone(tmp_path):
    path = tmp_path / "r.h5"
    write(path, make_maps())
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="interrupted"):
        write_labels(path, interrupted(), SHAPE, provenance={})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


@pytest.mark.parametrize(
    ("frame", "labels", "message"),
    [
        (9, np.zeros((2, 8, 7), np.uint8), "wrong shape"),
        (9, np.zeros(SHAPE, np.float32), "wrong shape or dtype"),
        (5, np.zeros(SHAPE, np.uint8), "must ascend"),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, frame, labels, message):
    rows = [(5, np.zeros(SHAPE, np.uint8), 0), (frame, labels, 0)]
    with pytest.raises(LabelError, match=message):
        write_labels(tmp_path / "r", rows, SHAPE, provenance={})
    assert not (tmp_path / "r").exists()


def test_missing_truncated_and_foreign_files_are_refused(tmp_path):
    write(tmp_path / "good", make_maps())
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:700])
    with h5py.File(tmp_path / "foreign", "w") as file:
        file["data"] = [1]
    for name, message in (
        ("none", "not a readable"),
        ("cut", "not a readable"),
        ("foreign", "not a label file"),
    ):
        with pytest.raises(LabelError, match=message):
            open_labels(tmp_path / name)


def test_a_file_without_frames_is_a_label_file(tmp_path):
    assert write_labels(tmp_path / "r", [], SHAPE, provenance={}) == 0
    frames, maps = read_labels(tmp_path / "r")
    assert frames.shape == (0,)
    assert maps.shape == (0, *SHAPE)
