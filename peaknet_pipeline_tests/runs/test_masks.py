"""Masks combine, survive a file, and remember who removed what."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.maps import geometry_bad_pixels
from peaknet_pipeline.runs.masks import (
    MaskSource,
    apply_bits,
    combine_masks,
    read_drawn_mask,
    read_mask,
    write_mask,
)
from peaknet_pipeline.types import MaskLayer
from peaknet_pipeline_tests.runs.files import module_geometry, slab_geometry

SHAPE = (3, 6, 8)


@given(hnp.arrays(np.bool_, (4, *SHAPE)))
@settings(max_examples=30, deadline=None)
def test_sources_add_up_to_the_joint_mask(masks: np.ndarray) -> None:
    joint, sources = combine_masks({f"m{i}": mask for i, mask in enumerate(masks)})
    assert np.array_equal(joint, masks.any(axis=0))
    assert sum(s.n_new for s in sources) == joint.sum()
    assert [s.n_bad for s in sources] == [m.sum() for m in masks]


@pytest.mark.parametrize("name", ["mask.h5", "mask.npy"])
def test_a_mask_survives_its_file(tmp_path: Path, name: str) -> None:
    bad = np.random.default_rng(0).random(SHAPE) < 0.2
    sources = (MaskSource("drawn", 7, 5), MaskSource("hot", 3, 3))
    write_mask(bad, tmp_path / name, sources=sources)
    again, told = read_mask(tmp_path / name, module_geometry())
    assert np.array_equal(again, bad)
    assert told == (sources if name.endswith("h5") else (MaskSource(name, int(bad.sum()), int(bad.sum())),))
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_slab_shaped_mask_is_cut_into_panels(tmp_path: Path) -> None:
    slab = np.zeros((18, 8), np.uint8)
    slab[13, 2] = 1
    np.save(tmp_path / "drawn.npy", slab)
    bad, _ = read_mask(tmp_path / "drawn.npy", slab_geometry())
    assert np.argwhere(bad).tolist() == [[2, 1, 2]]


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "drawn.npy", np.zeros((5, 5), bool))
    with pytest.raises(RunError, match=r"the mask does not fit.*\(3, 6, 8\), found \(5, 5\)"):
        read_mask(tmp_path / "drawn.npy", slab_geometry())
    with pytest.raises(RunError, match="masks differ in shape"):
        combine_masks({"a": np.zeros((2, 2), bool), "b": np.zeros((2, 3), bool)})


def test_pickles_and_other_files_are_no_masks(tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RunError, match="not a numpy mask"):
        read_mask(tmp_path / "pickled.npy")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(RunError, match="no mask in the file"):
        read_mask(tmp_path / "other.h5")
    with pytest.raises(RunError, match="no such mask file"):
        read_mask(tmp_path / "none.h5")


def test_good_bits_must_be_set_and_bad_bits_must_not() -> None:
    values = np.array([0b000, 0b001, 0b011, 0b101, 0b110], np.uint8)
    assert apply_bits(values, MaskLayer("/m", None, 0b001, 0b100)).tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert apply_bits(np.array([0, 2**31], np.uint32), MaskLayer("/m", bad_bits=-1)).tolist() == [False, True]


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64", "int64"])
def test_every_bit_of_a_mask_counts(dtype: str) -> None:
    size = 8 * np.dtype(dtype).itemsize
    values = np.array([0] + [1 << k for k in range(size)], dtype=f"uint{size}").view(dtype)
    everything = apply_bits(values, MaskLayer("/m"))
    assert everything.tolist() == [False] + [True] * 32 + [False] * (size - 32)
    for bits in (1 << 16, 1 << 31, 0xFFFF0000):
        bad = apply_bits(values, MaskLayer("/m", bad_bits=bits))
        assert bad.tolist() == [False] + [bool(bits >> k & 1) for k in range(size)]
    unmarked = apply_bits(values, MaskLayer("/m", good_bits=1 << 31, bad_bits=0))
    assert np.flatnonzero(~unmarked).tolist() == [32]
    assert apply_bits(values, MaskLayer("/m", bad_bits=-1)).tolist() == [False] + [True] * size


@pytest.mark.parametrize("kind", ["slab", "module", "frame between"])
def test_a_mask_is_written_as_the_geometry_reads_it(tmp_path, kind):
    """A ``.geom`` that names ``/mask`` leaves out the same pixels as the stack that was written."""
    dims = (
        "dim0 = ss\ndim1 = %\ndim2 = fs\n" if kind == "frame between" else "dim0 = %\ndim1 = ss\ndim2 = fs\n"
    )
    geometry = module_geometry() if kind == "module" else slab_geometry(dims=dims)
    bad = np.random.default_rng(3).random(geometry.stack_shape) < 0.2
    bad &= ~geometry_bad_pixels(geometry)
    write_mask(bad, tmp_path / "m.h5", geometry=geometry)
    with h5py.File(tmp_path / "m.h5") as file:
        frame = file["/mask"][:]
    assert frame.dtype == np.uint8
    assert frame.ndim == (3 if kind == "module" else 2)
    np.save(tmp_path / "m.npy", frame)
    read, _ = read_mask(tmp_path / "m.npy", geometry)
    assert np.array_equal(read, bad)
    assert np.array_equal(read_mask(tmp_path / "m.h5", geometry)[0], bad)


def test_panels_with_data_sets_of_their_own_have_no_such_frame(tmp_path):
    geometry = slab_geometry()
    first, *others = geometry.panels
    split = replace(geometry, panels=(replace(first, data_path="/a"), *others))
    with pytest.raises(RunError, match="data sets of their own"):
        write_mask(np.zeros(geometry.stack_shape, bool), tmp_path / "m.h5", geometry=split)
    assert not (tmp_path / "m.h5").exists()


def test_a_drawn_mask_of_the_other_polarity_is_doubted_and_inverted_if_wished(tmp_path: Path) -> None:
    good = np.ones((2, 6, 8), np.uint8)
    good[0, 1, 2] = 0
    np.save(tmp_path / "drawn.npy", good)
    doubts: list[str] = []
    assert read_drawn_mask(tmp_path / "drawn.npy", doubt=doubts.append).sum() == good.size - 1
    assert np.argwhere(
        read_drawn_mask(tmp_path / "drawn.npy", invert=True, doubt=doubts.append)
    ).tolist() == [[0, 1, 2]]
    assert "drawn.npy takes 99% of the pixels: is 1 good here?" in doubts[0]
    assert "was inverted" in doubts[1]
    np.save(tmp_path / "half.npy", good[:, :, :] * 0)
    read_drawn_mask(tmp_path / "half.npy", invert=True, doubt=doubts.append)
    assert len(doubts) == 2


def test_a_mask_that_says_what_its_values_mean_is_taken_as_it_is(tmp_path: Path) -> None:
    bad = np.ones((2, 6, 8), np.bool_)
    bad[0, 1, 2] = False
    write_mask(bad, tmp_path / "own.h5", sources=(MaskSource("drawn", 95, 95),))
    doubts: list[str] = []
    read = read_drawn_mask(tmp_path / "own.h5", invert=True, doubt=doubts.append)
    np.testing.assert_array_equal(read, bad)
    assert not doubts
