"""What a notebook finds is what the commands and the assets write, row for row."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import peaknet_pipeline as pn
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.learn.checkpoint import load_shipped
from peaknet_pipeline.runs.masks import write_mask
from peaknet_pipeline.runs.rings import RingParams
from peaknet_pipeline.schemas import INDEX, PEAKS, REFLECTIONS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.stages.classical_peaks import classical_peaks
from peaknet_pipeline.stages.peaknet_peaks import peaknet_peaks
from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.stages.run_index import classical_index
from peaknet_pipeline.stages.run_statistics import run_statistics
from peaknet_pipeline.steps.find_in_file import find_command
from peaknet_pipeline.steps.finders import FINDERS
from peaknet_pipeline.steps.index_file import index_command
from peaknet_pipeline.steps.measure_yield import measure_yield
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import control_path, read_bad_pixels, reflections_path
from peaknet_pipeline.tables import read_table

KEY = "small-r0001"
SETTINGS = {
    "peakfinder8": {"threshold": 70.0, "max_pix": 60, "local_bg_radius": 4},
    "droplet": {"thr_low": 30.0, "thr_high": 80.0, "son_min": 5.0},
    "peaknet": {},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One simulated run with its statistics and mask."""
    root = tmp_path_factory.mktemp("door")
    experiment = demo_experiment(6, name="small")
    write_experiment_files(experiment, root / "raw" / "small")
    simulate_run(experiment, root / "raw" / "small" / "r0001.h5", n_frames=6, seed=33, run_number=1)
    raw_run(Store(root), KEY)
    run_statistics(Store(root), KEY)
    return Store(root)


@pytest.fixture(scope="module")
def files(store):
    folder = store.raw_root / "small"
    return folder / "r0001.h5", next(folder.glob("*.geom")), next(folder.glob("*.cell"))


@pytest.fixture(scope="module")
def run(files):
    with pn.open_run(str(files[0]), str(files[1])) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(run):
    return {name: pn.find(run, name, **SETTINGS[name]) for name in FINDERS}


@pytest.mark.parametrize("finder", FINDERS)
def test_a_notebook_finds_what_the_command_writes(finder, files, found, tmp_path):
    settings = [f"{name}={value}" for name, value in SETTINGS[finder].items()]
    out = tmp_path / "peaks.parquet"
    find_command(
        files[0], geometry=files[1], finder=finder, model=None, settings=settings, masks=(), out=out, cxi=None
    )
    assert len(found[finder]) > 20
    assert found[finder].equals(read_table(out, PEAKS))


@pytest.mark.parametrize("finder", FINDERS)
def test_a_notebook_finds_what_the_asset_writes(finder, store, run):
    bad = pn.mask(run)
    assert np.array_equal(bad, read_bad_pixels(store, KEY))
    if finder == "peaknet":
        written = peaknet_peaks(store, KEY).output
    else:
        section = {"peakfinder8": "finder", "droplet": "droplet"}[finder]
        text = f"classical_finder: {finder}\n{section}: {json.dumps(SETTINGS[finder])}\n"
        (store.raw_root / "small" / "experiment.yaml").write_text(text)
        written = classical_peaks(store, KEY).output
    assert pn.find(run, finder, bad_pixels=bad, **SETTINGS[finder]).equals(read_table(written, PEAKS))


def test_a_noise_budget_gives_the_same_rows_everywhere_and_its_setting_is_recorded(
    store, files, run, tmp_path
):
    budget, out, bad = {"false_peaks_per_mpix": 2.0}, tmp_path / "peaks.parquet", pn.mask(run)
    told = find_command(
        files[0], geometry=files[1], finder="peakfinder8", model=None, settings=["false_peaks_per_mpix=2"],
        masks=(), out=out, cxi=None,
    )  # fmt: skip
    written = pn.find(run, **budget)
    assert len(written) > 20
    assert written.equals(read_table(out, PEAKS))
    assert written.equals(pn.find(run, threshold=told["threshold"], min_snr=told["min_snr"]))
    (store.raw_root / "small" / "experiment.yaml").write_text(f"finder: {json.dumps(budget)}\n")
    rows = read_table(classical_peaks(store, KEY).output, PEAKS)
    assert pn.find(run, bad_pixels=bad, **budget).equals(rows)


def test_a_stream_cannot_keep_a_noise_budget(run):
    params = FINDERS["peakfinder8"].parameters(false_peaks_per_mpix=1.0)
    with pytest.raises(ParameterError, match="needs the frames of a run"):
        FINDERS["peakfinder8"].make(params, run.geometry, run.bad_pixels, None, False)


def test_a_notebook_indexes_what_command_and_asset_write(store, files, run, tmp_path):
    text = f"finder: {json.dumps(SETTINGS['peakfinder8'])}\nmetrics: {{min_peaks: 12}}\n"
    (store.raw_root / "small" / "experiment.yaml").write_text(text)
    written = classical_peaks(store, KEY).output
    peaks = read_table(written, PEAKS)
    indexing = pn.index(peaks, run, str(files[2]), min_peaks=12)
    lattices = read_table(classical_index(store, KEY).output, INDEX)
    assert len(lattices)
    assert indexing.lattices.equals(lattices)
    assert json.loads(control_path(store, KEY, "classical").read_text()) == vars(indexing.control)
    bad = read_bad_pixels(store, KEY)
    reflections = pn.predict(run, peaks, indexing, bad_pixels=bad)
    assert reflections.equals(read_table(reflections_path(store, KEY, "classical"), REFLECTIONS))
    index_command(
        written, geometry=files[1], cell=files[2], engine="lattice", settings=(),
        out=tmp_path / "index.parquet", stream=None,
    )  # fmt: skip
    by_default = pn.index(peaks, run, files[2])
    assert by_default.lattices.equals(read_table(tmp_path / "index.parquet", INDEX))
    assert repr(by_default).startswith(f"<Indexing: {len(by_default.lattices)} lattices in ")


def test_what_the_experiment_calls_a_hit_is_what_the_control_scrambles(found, run, files):
    peaks = found["peakfinder8"]
    counts = np.bincount(peaks["frame"], minlength=run.n_frames)
    least = sorted({int(count) for count in counts if count >= 5})[:2]
    few, many = (pn.index(peaks, run, files[2], min_peaks=n).control.n_scrambled for n in (least[0], 10**6))
    assert few == (counts >= least[0]).sum()
    assert many == 0


def test_a_frame_is_shown_with_its_peaks_and_reflections(found, run, files, tmp_path):
    peaks = found["peakfinder8"]
    indexing = pn.index(peaks, run, files[2])
    frame = int(indexing.lattices["frame"].iloc[0])
    figure = pn.show(run, frame, peaks=peaks, reflections=pn.predict(run, peaks, indexing))
    assert isinstance(figure, Figure)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == f"found ({(peaks['frame'] == frame).sum()})"
    assert texts[1].startswith("predicted (")
    figure.savefig(tmp_path / "frame.png")
    rates = pn.rates(peaks, indexing, run)
    assert rates.frames == run.n_frames
    assert rates.indexed == indexing.lattices["frame"].nunique()


def test_networks_are_compared_by_what_a_notebook_counts(found, run, files):
    cell = pn.read_cell(files[2])
    measured = measure_yield(
        run, load_shipped(), cell, max_frames=None, inference=InferenceParams(), index=IndexParams(), min_peaks=12,
        bad_pixels=run.bad_pixels, rings=RingParams(), progress=lambda done, total: None,
    )  # fmt: skip
    indexing = pn.index(found["peaknet"], run, cell, min_peaks=12)
    assert measured.n_peaks == len(found["peaknet"])
    assert measured.control == indexing.control
    assert measured.rates == pn.rates(found["peaknet"], indexing, run, min_peaks=12)
    assert measured.rates.indexed


def test_masks_are_paths_or_arrays(run, tmp_path):
    bad = np.zeros(run.stack_shape, dtype=bool)
    bad[0] = True
    write_mask(bad, tmp_path / "mask.h5")
    settings = SETTINGS["peakfinder8"]
    peaks = pn.find(run, bad_pixels=bad, **settings)
    assert (peaks["panel"] > 0).all()
    assert peaks.equals(pn.find(run, bad_pixels=str(tmp_path / "mask.h5"), **settings))


def test_objects_tell_what_they_are(run, files):
    told = repr(run)
    assert told.startswith("<Run r0001.h5: 6 frames of ")
    assert " eV, " in told
    assert re.fullmatch(
        r"<Geometry .*\.geom: \d+ panels of \d+ × \d+ pixels, camera length .*>", repr(run.geometry)
    )
    assert repr(pn.read_cell(files[2])).startswith("<UnitCell ")
    assert pn.statistics(run).n_frames == 6


def test_unknown_finders_and_settings_are_refused(run):
    with pytest.raises(ParameterError, match=r"unknown finder.*peakfinder8, droplet, peaknet"):
        pn.find(run, "magic")
    with pytest.raises(ParameterError, match="unknown parameter 'treshold'"):
        pn.find(run, treshold=3)
    with pytest.raises(ParameterError, match="a model goes with the finder peaknet"):
        pn.find(run, model="folder")


def test_the_package_loads_nothing_before_it_is_used():
    code = "import sys, peaknet_pipeline as pn; print([m for m in ('numpy', 'torch', 'numba') if m in sys.modules], dir(pn))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith("[] ")
    assert all(f"'{name}'" in told for name in pn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pn.nothing


def test_the_ten_lines_of_the_readme_run(files, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(import peaknet_pipeline as pn\n.*?)```", text, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    for path, name in zip(files, ("run.h5", "detector.geom", "protein.cell"), strict=True):
        Path(name).symlink_to(path)
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102
    assert Path("frame.png").stat().st_size > 10_000
