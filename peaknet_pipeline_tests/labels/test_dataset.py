"""Packed runs and crops: survive, repeat, cover, and never read outside a panel."""

import pickle
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.cache import cache_run, find_bright_background, find_labelled_peaks
from peaknet_pipeline.labels.dataset import CropDataset, CropParams, PanelDataset
from peaknet_pipeline.labels.store import write_labels

SHAPE = (2, 60, 80)


def make_frames(n=4, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.poisson(10, (n, *SHAPE)).astype(np.uint16)
    labels = np.zeros((n, *SHAPE), np.uint8)
    labels[:, 0, 30:33, 40:42] = 1
    labels[:, 1, 0:2, 78:80] = 1
    labels[:, 1, 50, 10] = 255
    return images, labels


def pack(tmp_path, name="run", n=4, seed=0, bad=None):
    images, labels = make_frames(n, seed)
    path = tmp_path / f"{name}.h5"
    write_labels(path, [(10 + 3 * i, m, 2) for i, m in enumerate(labels)], SHAPE, provenance={})
    reads = []

    def read(frame):
        reads.append(frame)
        return images[(frame - 10) // 3]

    bad = np.zeros(SHAPE, bool) if bad is None else bad
    return cache_run(name, path, read, bad_pixels=bad, cache_root=tmp_path / "cache"), images, labels, reads


def test_the_cache_survives_and_is_made_again_only_when_labels_change(tmp_path):
    first, images, labels, reads = pack(tmp_path)
    assert reads == [10, 13, 16, 19]
    again, *_, reads = pack(tmp_path)
    assert again.path == first.path
    assert reads == []
    np.testing.assert_array_equal(first.load("images"), images)
    np.testing.assert_array_equal(first.load("labels"), labels)
    changed, *_, reads = pack(tmp_path, n=3)
    assert changed.path != first.path
    assert len(reads) == 3


@pytest.mark.parametrize("damage", ["truncated", "absent", "foreign"])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    run, images, *_ = pack(tmp_path)
    file = run.path / "images.npy"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "absent":
        file.unlink()
    else:
        np.save(run.path / "frames.npy", np.arange(4))
    again, *_, reads = pack(tmp_path)
    assert reads == [10, 13, 16, 19]
    np.testing.assert_array_equal(again.load("images"), images)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from peaknet_pipeline.labels.cache import cache_run

def read(frame):
    if frame == 16:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros((2, 60, 80), np.uint16)

root = Path(sys.argv[1])
cache_run("run", root / "run.h5", read, bad_pixels=np.zeros((2, 60, 80), bool), cache_root=root / "cache")
"""


def test_a_process_killed_in_the_middle_of_packing_leaves_nothing_that_counts(tmp_path):
    images, labels = make_frames()
    write_labels(
        tmp_path / "run.h5", [(10 + 3 * i, m, 2) for i, m in enumerate(labels)], SHAPE, provenance={}
    )
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [p.name[0] for p in (tmp_path / "cache").iterdir()] == ["."]
    run, *_, reads = pack(tmp_path)
    assert reads == [10, 13, 16, 19]
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [run.path.name]
    np.testing.assert_array_equal(run.load("images"), images)


def test_neither_packing_nor_cropping_holds_a_run_in_memory(tmp_path):
    shape, n = (1, 400, 400), 40
    frame_bytes = 400 * 400 * 2
    label = np.zeros(shape, np.uint8)
    label[0, 200, 200] = 1
    write_labels(tmp_path / "l", ((i, label, 1) for i in range(n)), shape, provenance={})
    tracemalloc.start()
    run = cache_run(
        "r",
        tmp_path / "l",
        lambda f: np.full(shape, f, np.uint16),
        bad_pixels=np.zeros(shape, bool),
        cache_root=tmp_path / "cache",
    )
    data = CropDataset([run], CropParams(size=64, per_epoch=400))
    for i in range(len(data)):
        data[i]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * n * frame_bytes


def test_a_failed_packing_leaves_nothing(tmp_path):
    _, labels = make_frames()
    write_labels(tmp_path / "l", [(0, labels[0], 2)], SHAPE, provenance={})
    with pytest.raises(LabelError, match="different shapes"):
        cache_run(
            "r",
            tmp_path / "l",
            lambda f: np.zeros((1, 2, 3)),
            bad_pixels=np.zeros(SHAPE, bool),
            cache_root=tmp_path / "cache",
        )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_crop_is_the_frame_itself(tmp_path):
    bad = np.zeros(SHAPE, bool)
    bad[0, 31, 41] = True
    run, images, labels, _ = pack(tmp_path, bad=bad)
    dataset = CropDataset([run], CropParams(size=16, per_epoch=50))
    for i in range(50):
        crop = dataset[i]
        _, frame, panel, ss, fs = crop.origin
        window = np.s_[(frame - 10) // 3, panel, ss : ss + 16, fs : fs + 16]
        np.testing.assert_array_equal(crop.label, labels[window])
        np.testing.assert_array_equal(crop.good, ~bad[window[1:]])
        np.testing.assert_array_equal(crop.image, np.where(crop.good, images[window], 0))


def test_crops_repeat_for_the_same_seed_and_epoch_and_differ_otherwise(tmp_path):
    run, *_ = pack(tmp_path)
    make = lambda seed: CropDataset([run], CropParams(size=16, per_epoch=20), seed=seed)  # noqa: E731
    origins = lambda d: np.stack([d[i].origin for i in range(20)])  # noqa: E731
    one, same, other = make(1), make(1), make(2)
    np.testing.assert_array_equal(origins(one), origins(same))
    assert (origins(one) != origins(other)).any()
    same.set_epoch(1)
    assert (origins(one) != origins(same)).any()


def test_the_shares_of_peaks_hard_and_random_crops_hold(tmp_path):
    run, *_ = pack(tmp_path)

    def share(peaks, hard):
        data = CropDataset([run], CropParams(size=8, per_epoch=300, peak_share=peaks, hard_share=hard))
        return np.mean([(data[i].label == 1).any() for i in range(300)])

    assert share(1.0, 0.0) == 1.0
    assert share(0.0, 0.0) < 0.2
    assert 0.4 < share(0.5, 0.0) < 0.65


def test_hard_crops_hold_the_brightest_background(tmp_path):
    images, labels = make_frames()
    bad = np.zeros(SHAPE, bool)
    images[0, 1, 40, 60], images[0, 0, 31, 41], images[0, 0, 5, 5] = 5000, 9000, 60000
    bad[0, 5, 5] = True
    places = find_bright_background(images[0], labels[0], bad)
    assert [1, 40, 60] in places.tolist()
    assert [0, 31, 41] not in places.tolist()
    assert [0, 5, 5] not in places.tolist()


def test_labelled_peaks_of_neighbouring_panels_stay_apart():
    label = np.zeros((2, 10, 10), np.uint8)
    label[0, 4:7, 4:7] = label[1, 4:7, 4:7] = label[1, 7, 7] = 1
    assert find_labelled_peaks(label).tolist() == [[0, 5, 5], [1, 5, 5]]


def test_a_panel_smaller_than_the_crop_is_surrounded_by_ignore(tmp_path):
    run, *_ = pack(tmp_path)
    crop = CropDataset([run], CropParams(size=100, per_epoch=5))[0]
    assert crop.good.sum() == 60 * 80
    assert (crop.label[~crop.good] == 255).all()
    assert (crop.image[~crop.good] == 0).all()


def test_only_the_wanted_frames_are_used(tmp_path):
    run, *_ = pack(tmp_path)
    data = CropDataset([run], CropParams(size=16, per_epoch=60), frames=[np.array([13, 19])])
    assert {int(data[i].origin[1]) for i in range(60)} == {13, 19}
    with pytest.raises(LabelError, match="no frames"):
        CropDataset([run], frames=[np.array([999])])


def test_whole_panels_are_each_shown_once_an_epoch(tmp_path):
    run, images, *_ = pack(tmp_path)
    data = PanelDataset([run, run], shuffle=True, seed=3)
    seen = [tuple(int(v) for v in data[i].origin[:3]) for i in range(len(data))]
    assert len(set(seen)) == len(seen) == 16
    data.set_epoch(1)
    assert [tuple(int(v) for v in data[i].origin[:3]) for i in range(16)] != seen
    np.testing.assert_array_equal(PanelDataset([run])[1].image, images[0, 1])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_worker_processes_give_the_same_epoch(tmp_path):
    torch = pytest.importorskip("torch")
    run, *_ = pack(tmp_path)
    data = CropDataset([run], CropParams(size=16, per_epoch=12), seed=4)
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301
    np.testing.assert_array_equal(copy[3].image, data[3].image)
    loader = torch.utils.data.DataLoader(
        data, batch_size=4, num_workers=2, multiprocessing_context="forkserver"
    )
    images = torch.cat([batch.image for batch in loader])
    np.testing.assert_array_equal(images.numpy(), np.stack([data[i].image for i in range(12)]))


def test_a_damaged_cache_is_named(tmp_path):
    run, *_ = pack(tmp_path)
    (run.path / "images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(LabelError, match=r"damaged training cache.*Delete the folder"):
        CropDataset([run], CropParams(size=8))[0]


def test_a_run_without_labelled_frames_packs_and_adds_nothing(tmp_path):
    write_labels(tmp_path / "l", [], SHAPE, provenance={})
    empty = cache_run(
        "e",
        tmp_path / "l",
        lambda f: np.zeros(SHAPE),
        bad_pixels=np.zeros(SHAPE, bool),
        cache_root=tmp_path / "c",
    )
    run, *_ = pack(tmp_path)
    assert len(PanelDataset([empty, run])) == 8
    assert CropDataset([empty, run], CropParams(size=8)).__getitem__(0).origin[0] == 1
