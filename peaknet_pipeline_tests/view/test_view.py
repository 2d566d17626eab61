"""The page shows what the tables and files hold, answers nobody else, and writes nothing but a drawn mask."""

from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.assemble import assemble
from peaknet_pipeline.indexing.predict import predict_reflections
from peaknet_pipeline.infer.params import OutputParams
from peaknet_pipeline.runs.masks import read_drawn_mask, read_layers, write_mask
from peaknet_pipeline.schemas import INDEX, PEAKS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.stages.classical_peaks import classical_peaks
from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.stages.run_index import classical_index
from peaknet_pipeline.stages.run_statistics import run_statistics
from peaknet_pipeline.steps.find_in_file import find_command
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import index_path, peaks_path
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.view.openers import Given, find_scenes
from peaknet_pipeline.view.server import MAX_BODY_BYTES, Viewer, make_app
from peaknet_pipeline_tests.browser import browser_page
from peaknet_pipeline_tests.view.served import served

KEY = "small-r0001"
N_FRAMES = 6
SETTINGS = {"threshold": 70.0, "max_pix": 60, "local_bg_radius": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One simulated run with its classical peaks and lattices."""
    root = tmp_path_factory.mktemp("view")
    experiment = demo_experiment(6, name="small")
    write_experiment_files(experiment, root / "raw" / "small")
    simulate_run(experiment, root / "raw" / "small" / "r0001.h5", n_frames=N_FRAMES, seed=33, run_number=1)
    store = Store(root)
    raw_run(store, KEY)
    run_statistics(store, KEY)
    classical_peaks(store, KEY, overrides=SETTINGS)
    classical_index(store, KEY)
    return store


@pytest.fixture
def viewer(store, tmp_path):
    """The run by its key."""
    made = Viewer(find_scenes([KEY], Given(data=store.root)), tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(viewer):
    """A browser of this machine."""
    with served(make_app(viewer)) as client:
        yield client


def array(answer):
    assert answer.status == 200, answer.content
    return np.frombuffer(answer.content, dtype=answer.headers["x-dtype"])


def test_a_frame_put_together_by_the_page_is_the_assembled_frame(client, viewer):
    scene, _ = viewer.scene(0)
    layout = array(client.get("/api/0/layout")).astype(np.int64)
    for number in (0, N_FRAMES - 1):
        stack = scene.run.read(number, number + 1)[0]
        raw = array(client.get(f"/api/0/frame/{number}"))
        assert raw.dtype == stack.dtype
        expected = np.asarray(assemble(stack.astype(np.float32), scene.geometry, fill=-1.0)).ravel()
        assert np.array_equal(np.where(layout > 0, raw.astype(np.float32)[layout - 1], -1.0), expected)


def test_marks_lie_on_the_pixels_of_their_peaks(client, store, viewer):
    peaks = read_table(peaks_path(store, KEY, "classical"), PEAKS)
    frame = int(peaks["frame"].mode()[0])
    own, scene = peaks[peaks["frame"] == frame], viewer.scene(0)[0]
    marks = client.get(f"/api/0/marks/{frame}").json()["peaks"]["classical"]
    place = scene.layout[np.floor(marks["y"]).astype(int), np.floor(marks["x"]).astype(int)].astype(int) - 1
    panel, ss, fs = np.unravel_index(place, scene.bad_pixels.shape)
    assert len(own) > 10
    assert np.array_equal(panel, own["panel"])
    # A place of the picture takes the pixel under its centre: of a shifted or turned panel at most the neighbour.
    assert np.abs(ss - own["ss"]).max() <= 1.5
    assert np.abs(fs - own["fs"]).max() <= 1.5
    assert np.allclose(marks["snr"], own["snr"], atol=1e-3)


def test_predicted_reflections_are_those_of_the_lattices(client, store, viewer):
    lattices, scene = read_table(index_path(store, KEY, "classical"), INDEX), viewer.scene(0)[0]
    frame = int(lattices["frame"].iloc[0])
    own = lattices[lattices["frame"] == frame]
    shown = client.get(f"/api/0/marks/{frame}").json()["lattices"]["classical"]
    expected = predict_reflections(
        own,
        peaks=scene.peaks_of("classical", frame),
        cell=scene.cell,
        geometry=scene.geometry,
        photon_energy_ev=scene.run.photon_energy_ev,
    )
    assert len(shown["lattices"]) == len(own)
    assert shown["hkl"] == expected[["h", "k", "l"]].to_numpy().tolist()


def test_the_table_counts_what_the_tables_hold(client, store):
    table = client.get("/api/0/frames").json()
    peaks = read_table(peaks_path(store, KEY, "classical"), PEAKS)
    assert table["peaks classical"] == [int((peaks["frame"] == i).sum()) for i in range(N_FRAMES)]
    assert table["hit classical"] == [int(n >= 15) for n in table["peaks classical"]]
    assert set(table) == {"frame", "peaks classical", "hit classical", "lattices classical"}


def test_the_same_settings_find_what_the_asset_found(client, store):
    peaks = read_table(peaks_path(store, KEY, "classical"), PEAKS)
    found = client.post(
        "/api/0/find", {"frame": 1, "finder": "peakfinder8", "settings": SETTINGS, "index": True}
    ).json()
    assert found["n_peaks"] == int((peaks["frame"] == 1).sum())
    assert found["n_lattices"] is not None
    worse = client.post("/api/0/find", {"frame": 1, "finder": "peakfinder8", "settings": {"min_snr": -1}})
    assert worse.status == 400
    assert "min_snr" in worse.json()["error"]


def test_drawn_shapes_become_a_mask_that_the_chain_reads(client, viewer, tmp_path):
    scene = viewer.scene(0)[0]
    rows, columns = scene.layout.shape
    x, y = columns / 2, rows / 2
    shapes = [
        {"kind": "circle", "points": [[x, y]], "radius": 20},
        {"kind": "polygon", "points": [[5, 5], [45, 5], [45, 25], [5, 25]]},
        {"kind": "pixel", "points": [[100.4, 60.6]]},
    ]
    xs, ys = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    chosen = np.hypot(xs - x, ys - y) <= 20
    chosen |= (xs > 5) & (xs < 45) & (ys > 5) & (ys < 25)
    chosen[60, 100] = True
    expected = np.zeros(scene.bad_pixels.size + 1, dtype=bool)
    expected[scene.layout[chosen]] = True
    counted = client.post("/api/0/mask/count", {"shapes": shapes}).json()["n_pixels"]
    assert counted == expected[1:].sum()
    paths = [client.post("/api/0/mask/save", {"shapes": shapes}).json()["path"] for _ in range(2)]
    assert [Path(path).name for path in paths] == [f"{KEY}-drawn.h5", f"{KEY}-drawn-2.h5"]
    for path in paths:
        mask = read_drawn_mask(Path(path), scene.geometry, doubt=pytest.fail)
        assert np.array_equal(mask.ravel(), expected[1:])
        assert list(read_layers(Path(path))) == ["drawn"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{KEY}-drawn-2.h5", f"{KEY}-drawn.h5"]


@pytest.mark.parametrize(
    "shapes",
    [
        [{"kind": "polygon", "points": [[1, 1], [2, 2]]}],
        [{"kind": "circle", "points": [[1, float("1e9")]], "radius": 1}],
        [{"kind": "circle", "points": [[1, 1]], "radius": "wide"}],
        [{"kind": "star", "points": [[1, 1]]}],
        ["polygon"],
        "polygon",
        [{"kind": "pixel", "points": [[1, 1]]}] * 1001,
    ],
)
def test_shapes_that_are_none_are_refused(client, shapes, tmp_path):
    answer = client.post("/api/0/mask/save", {"shapes": shapes})
    assert answer.status == 400
    assert answer.json()["error"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/0/frame/99",
        "/api/7/about",
        "/api/0/frame/-1",
        "/../server.py",
        "/page/app.js",
        "/api/0/frame/1/../../x",
    ],
)
def test_only_frames_of_the_opened_runs_are_answered(client, path):
    answer = client.get(path)
    assert answer.status in (400, 404)
    assert b"import" not in answer.content


def test_other_sites_get_nothing(client, viewer):
    assert client.get("/api/runs", host="evil.example").status == 400
    plain = client.post("/api/0/find", b"{}", content_type="text/plain")
    assert plain.status == 400
    large = client.post("/api/0/find", b" " * (MAX_BODY_BYTES + 1))
    assert large.status == 400
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_away_from_this_machine_nothing_is_answered_without_the_token(viewer):
    word = "a-word-that-nobody-guesses"
    with served(make_app(viewer, token=word, hosts=("*",))) as client:
        for path in ("/", "/api/runs", "/api/0/frame/0", "/?token=wrong"):
            assert client.get(path).status == 401
        welcome = client.get(f"/?token={word}")
        assert welcome.status == 307
        assert welcome.headers["location"] == "/"
        cookie = welcome.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert client.get("/api/runs", cookie=cookie.split(";")[0]).status == 200
        assert client.get("/api/runs", cookie="peaknet_token=wrong").status == 401


def test_a_run_and_its_tables_are_found_by_their_files(store, tmp_path):
    run, folder = store.root / "raw" / "small" / "r0001.h5", store.root / "raw" / "small"
    geometry = next(folder.glob("*.geom"))
    tables = [str(peaks_path(store, KEY, "classical")), str(index_path(store, KEY, "classical"))]
    cell = next(folder.glob("*.cell"))
    (opener,) = find_scenes([str(run), *tables], Given(geometry=geometry, cell=cell))
    scene = opener.open()
    assert list(scene.peaks) == ["peakfinder8"]
    assert len(scene.lattices) == 1
    scene.close()
    mask = np.zeros(scene.geometry.stack_shape, dtype=bool)
    mask[0, 5:9] = True
    write_mask(mask, tmp_path / "m.h5")
    options = {
        "finder": "peakfinder8",
        "model": None,
        "cxi": None,
        "settings": [],
        "masks": [tmp_path / "m.h5"],
    }
    found = tmp_path / "p.parquet"
    find_command(run, geometry=geometry, out=found, output=OutputParams(min_peaks=7), **options)
    (masked,) = find_scenes([str(found)], Given(geometry=geometry))
    shown = masked.open()
    assert shown.min_peaks == 7
    assert shown.layers["masks of the finder"][0, 5:9].mean() > 0.9
    assert shown.bad_pixels[0, 5:9].all()
    shown.close()
    (alone,) = find_scenes(tables[:1], Given(geometry=geometry))
    assert alone.open().run.n_frames == N_FRAMES
    assert [opener.name for opener in find_scenes(["small"], Given(data=store.root))] == [KEY]
    for named in (["nothing"], [str(run), str(run)], [str(run), "small"]):
        with pytest.raises(ParameterError):
            find_scenes(named, Given(data=store.root))


def test_the_page_in_a_browser(viewer, client, tmp_path):
    """Every part of the page is used once; any error that the browser reports fails the test."""
    with browser_page() as page:
        page.open(f"http://127.0.0.1:{client.port}/")
        page.wait_for("document.body?.dataset.ready === 'yes'")
        number = "Number(document.getElementById('number').value)"
        before = page.value(number)
        page.press("n")
        page.wait_for(f"{number} !== {before}")
        colours = page.value(
            "(() => { const c = document.getElementById('image'); const d = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; return new Set(new Uint32Array(d.buffer)).size })()"
        )
        assert colours > 20
        page.value("document.querySelector('[data-tab=list]').click()")
        page.wait_for("document.querySelectorAll('#table-body .line').length >= 6")
        page.value("document.querySelector('[data-tab=tune]').click()")
        page.wait_for("document.getElementById('tuned').textContent.includes('peaks')")
        page.value("document.querySelector('#settings input').value = 60")
        page.value("document.querySelector('#settings input').dispatchEvent(new Event('input'))")
        assert "finder: {threshold: 60}" in page.value("document.getElementById('yaml').textContent")
        page.value("document.querySelector('[data-tab=mask]').click()")
        page.value("document.querySelector('[data-shape=circle]').click()")
        page.click(500, 450)
        page.click(540, 450)
        page.wait_for("document.getElementById('mask-count').textContent.includes('pixels')")
        page.value("document.getElementById('save-mask').click()")
        page.wait_for("!document.getElementById('mask-saved').hidden")
        assert page.complaints == []
        assert page.value("document.getElementById('note').textContent") == ""
    assert (tmp_path / f"{KEY}-drawn.h5").is_file()
