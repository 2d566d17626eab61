"""Every picture shows what it is given, checked on its pixels; empty input is no error."""

import io
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from scipy.spatial.transform import Rotation

from peaknet_pipeline.metrics import SNR_BANDS, recall_table
from peaknet_pipeline.plots import cells, curves, distributions, fits, geometry, images
from peaknet_pipeline.plots.style import DPI, intensity_range, to_png
from peaknet_pipeline.schemas import (
    DATA_ENGINE,
    FITS,
    INDEX,
    LABEL_QUALITY,
    PEAKS,
    SCORES,
    IndexTable,
    PeakTable,
)
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import Float64Array, UnitCell


def pixels_of(png: bytes) -> Float64Array:
    image = imread(io.BytesIO(png))
    assert image.ndim == 3
    assert image.shape[0] > 200
    assert image.shape[1] > 400
    return np.asarray(image[..., :3], dtype=np.float64)


def has_colour(png: bytes, colour: str, tolerance: float = 0.02) -> int:
    """Count the picture's pixels of a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(pixels_of(png) - wanted).max(axis=2) < tolerance).sum())


def peaks(n: int = 400) -> PeakTable:
    rng = np.random.default_rng(1)
    columns: dict[str, object] = {c.name: np.ones(n) for c in PEAKS.columns}
    columns |= {"frame": np.sort(rng.integers(0, 50, n)), "inv_d": rng.power(3, n) * 0.5}
    return make_table(PEAKS, columns | {"max_intensity": rng.lognormal(4, 1, n)})


def lattices(cell: UnitCell, n: int = 40) -> IndexTable:
    """Randomly turned lattices of an orthogonal cell."""
    turned = Rotation.random(n, rng=np.random.default_rng(2)).as_matrix() @ np.diag(
        [1 / cell.a, 1 / cell.b, 1 / cell.c]
    )
    columns: dict[str, object] = {c.name: np.ones(n) for c in INDEX.columns}
    for i, axis in enumerate("abc"):
        columns |= {f"{axis}star_{xyz}": turned[:, j, i] for j, xyz in enumerate("xyz")}
    return make_table(INDEX, columns)


def scores() -> pd.DataFrame:
    rows = {c.name: [0.5, 0.6] if c.dtype.startswith("float") else ["x", "x"] for c in SCORES.columns}
    counts = {
        "frames": [100, 100],
        "hits": [50, 60],
        "indexed": [30, 40],
        "scrambled": [50, 50],
        "peaks": [9, 9],
    }
    return make_table(SCORES, {**rows, **counts, "finder": ["classical", "peaknet"], "run": ["r1", "r1"]})


CELL = UnitCell(79.1, 79.1, 37.9, 90, 90, 90)
NO_PEAKS, NO_LATTICES = empty_table(PEAKS), empty_table(INDEX)
BLANK = np.full((30, 40), np.nan)

EMPTY: dict[str, Callable[[], bytes]] = {
    "image": lambda: images.plot_image(BLANK, title="t"),
    "mask": lambda: images.plot_mask(BLANK, title="t"),
    "frame": lambda: images.plot_frame_peaks(BLANK, {"classical": np.empty((0, 2))}, title="t"),
    "losses": lambda: curves.plot_losses([], title="t"),
    "rates": lambda: curves.plot_rates(empty_table(SCORES), title="t"),
    "over runs": lambda: curves.plot_rates_over_runs(empty_table(SCORES), title="t"),
    "recall": lambda: curves.plot_recall({}, title="t"),
    "hit rate": lambda: curves.plot_hit_rate_over_time(
        {"peaknet": NO_PEAKS}, n_frames=0, min_peaks=5, title="t"
    ),
    "peakogram": lambda: distributions.plot_peakogram(NO_PEAKS, title="t"),
    "resolution": lambda: distributions.plot_resolution({"peaknet": NO_PEAKS}, title="t"),
    "peaks": lambda: distributions.plot_peaks(NO_PEAKS, 3, title="t"),
    "fits": lambda: fits.plot_labels(empty_table(FITS), title="t"),
    "label_quality": lambda: fits.plot_label_quality(empty_table(LABEL_QUALITY), title="t"),
    "data_engine": lambda: fits.plot_data_engine(empty_table(DATA_ENGINE)),
    "per frame": lambda: distributions.plot_peaks_per_frame(
        {"a": NO_PEAKS}, n_frames=3, min_peaks=5, title="t"
    ),
    "cells": lambda: distributions.plot_cells({"peaknet": NO_LATTICES}, title="t"),
    "orientations": lambda: distributions.plot_orientations({"peaknet": NO_LATTICES}, title="t"),
    "residuals": lambda: distributions.plot_panel_residuals(
        pd.DataFrame({"panel": [], "d_fs": [], "d_ss": []}), title="t"
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_show_is_still_a_picture(name: str) -> None:
    pixels_of(EMPTY[name]())


def test_titles_with_dollar_signs_are_not_formulas() -> None:
    pixels_of(images.plot_image(np.eye(5), title=r"run $5 and \frac{ $"))


def test_a_single_bright_pixel_survives_in_a_large_image() -> None:
    image = np.zeros((3000, 3500))
    image[1501, 1733] = 1.0
    reduced = images._reduce(image, 900)
    assert max(reduced.shape) <= 900
    assert reduced.max() == 1.0
    assert (reduced > 0).sum() == 1


def test_missing_panels_stay_missing_when_reduced() -> None:
    image = np.full((2000, 2000), np.nan)
    image[:1000] = 3.0
    reduced = images._reduce(image, 500)
    assert np.isnan(reduced[-1]).all()
    assert (reduced[:250] == 3.0).all()


def test_peaks_are_drawn_where_they_are() -> None:
    """The mean place of a finder's pixels moves with its one peak, up with y and right with x."""
    extent = (-50.0, 50.0, -50.0, 50.0)
    places = []
    for x, y in ((-30.0, -30.0), (30.0, 30.0)):
        png = images.plot_frame_peaks(
            np.zeros((100, 100)), {"peaknet": np.array([[x, y]])}, title="t", extent=extent
        )
        rows, columns = np.nonzero(
            np.abs(pixels_of(png) - np.array([1.0, 127 / 255, 14 / 255])).max(axis=2) < 0.05
        )
        in_image = rows < 0.8 * pixels_of(png).shape[0]
        places.append((columns[in_image].mean(), rows[in_image].mean()))
    assert places[1][0] > places[0][0] + 100
    assert places[1][1] < places[0][1] - 100


def test_mask_counts_bad_pixels_among_those_of_panels() -> None:
    mask = np.zeros((100, 100))
    mask[:50] = 1.0
    half = has_colour(images.plot_mask(mask, title="t"), "#D55E00")
    mask[:75] = 1.0
    assert has_colour(images.plot_mask(mask, title="t"), "#D55E00") > 1.4 * half > 1000


def figures_of(picture: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch, module: object) -> list[Figure]:
    """Return the figures that a picture was made of."""
    figures: list[Figure] = []
    draw = vars(module)["to_png"]
    monkeypatch.setattr(module, "to_png", lambda figure: figures.append(figure) or draw(figure))
    picture()
    return figures


@pytest.mark.parametrize("width", [7.3, 8.0, 9.2, 9.6, 10.4])
def test_no_width_shears_a_picture(width: float) -> None:
    """A vertical line stays in its columns from the top of the picture to its foot."""
    figure = Figure(figsize=(width, 4.3), dpi=DPI)
    figure.add_artist(Line2D([0.5, 0.5], [0, 1], color="black", lw=3))
    dark = pixels_of(to_png(figure)).sum(axis=2) < 0.5
    assert dark.any(axis=0).sum() <= 6
    assert dark.any(axis=1).all()


def test_mask_tells_the_detectors_pixels_not_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turned panel has another number of places in the picture than it has pixels."""
    stack = np.zeros((1, 10, 10))
    stack[0, 0, :3] = 1.0
    (figure,) = figures_of(
        lambda: images.plot_mask(np.zeros((12, 12)), title="t", stack=stack), monkeypatch, images
    )
    assert figure.axes[0].get_title(loc="left").endswith("3 of 100 pixels bad (3.00%)")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["good", "bad (3)", "no panel"]


def test_no_picture_writes_one_legend_over_another(monkeypatch: pytest.MonkeyPatch) -> None:
    panels = pd.DataFrame({"before_px": [1.0], "after_px": [0.5], "shift_x_px": [0.1], "shift_y_px": [0.2]})
    (figure,) = figures_of(
        lambda: geometry.plot_geometry_refinement(panels, title="t"), monkeypatch, geometry
    )
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["before", "after", "shift in x", "shift in y"]


def test_a_frame_far_off_the_others_is_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = np.tile([37.9, 79.1, 79.1, 90.0, 90.0, 90.0], (12, 1))
    reduced[3, 1] = 200.0
    agreeing = np.arange(12) != 3
    (figure,) = figures_of(
        lambda: cells.plot_reduced_cells(reduced, agreeing, CELL, title="t"), monkeypatch, cells
    )
    drawn = [max(patch.get_xy()[:, 1].max() for patch in axes.patches[1:]) for axes in figure.axes]
    assert drawn == [1.0] * 6


def test_found_peaks_are_seen_around_the_predicted_ones() -> None:
    place = np.array([[5.0, 5.0]])
    figure = images.draw_frame_peaks(np.zeros((10, 10)), {"found": place, "predicted": place}, title="t")
    found, predicted = figure.axes[0].collections
    assert found.get_sizes()[0] > 3 * predicted.get_sizes()[0]
    assert not np.array_equal(found.get_paths()[0].vertices, predicted.get_paths()[0].vertices)


def test_mask_shows_each_reason_in_its_colour_and_single_pixels_survive() -> None:
    mask = np.zeros((2000, 2000))
    mask[1000:] = 1.0
    without = has_colour(images.plot_mask(mask, title="t", reasons=("run", "hot")), "#0072B2")
    mask[500:510:2, 500:510:2] = 2.0
    shown = has_colour(images.plot_mask(mask, title="t", reasons=("run", "hot")), "#0072B2")
    assert shown > without + 3


@pytest.mark.parametrize(
    "png",
    [
        lambda: curves.plot_rates(scores(), title="t"),
        lambda: distributions.plot_resolution({"classical": peaks(), "peaknet": peaks(200)}, title="t"),
        lambda: distributions.plot_cells(
            {"classical": lattices(CELL), "peaknet": lattices(CELL, 20)}, title="t"
        ),
        lambda: curves.plot_hit_rate_over_time(
            {"classical": peaks(), "peaknet": peaks(200)}, n_frames=50, min_peaks=6, title="t"
        ),
        lambda: curves.plot_recall(
            {
                name: recall_table(
                    np.linspace(1, 60, 500), np.linspace(1, 60, 500) > limit, np.ones(500), SNR_BANDS
                )
                for name, limit in (("classical", 8), ("peaknet", 4))
            },
            title="t",
        ),
    ],
)
def test_both_finders_are_seen(png: Callable[[], bytes]) -> None:
    picture = png()
    assert has_colour(picture, "#0072B2") > 50
    assert has_colour(picture, "#D55E00") > 50


def test_accepted_and_ignored_fits_are_seen() -> None:
    columns: dict[str, object] = {c.name: np.ones(200) for c in FITS.columns}
    columns |= {"reduced_chi2": np.linspace(0.1, 9, 200), "accepted": np.arange(200) < 50}
    picture = fits.plot_labels(make_table(FITS, columns), title="t")
    assert has_colour(picture, "#58BC9E", 0.05) > 50
    assert has_colour(picture, "#A6A6A6", 0.05) > 50


def test_losses_with_validation() -> None:
    history = [{"step": i, "loss": 1 / (1 + i), "learning_rate": 1e-3} for i in range(50)]
    history[20] |= {"scores": {"precision": 0.5, "recall": 0.4, "f1": 0.44}}  # type: ignore[dict-item]
    assert has_colour(curves.plot_losses(history, title="t"), "#0072B2") > 50


def test_cell_parameters_are_those_of_the_cell() -> None:
    cells = distributions.cell_parameters(lattices(UnitCell(40.0, 60.0, 90.0, 90, 90, 90)))
    np.testing.assert_allclose(cells[["a", "b", "c"]], np.tile([40.0, 60.0, 90.0], (40, 1)), rtol=1e-9)
    np.testing.assert_allclose(cells[["alpha", "beta", "gamma"]], 90.0, rtol=1e-9)


def test_cell_parameters_of_an_oblique_cell() -> None:
    real = np.array([[30.0, 0, 0], [-10.0, 40.0, 0], [5.0, 7.0, 50.0]])
    reciprocal = np.linalg.inv(real).T
    table = lattices(CELL, 1).assign(
        **{f"{a}star_{x}": [reciprocal[i, j]] for i, a in enumerate("abc") for j, x in enumerate("xyz")}
    )
    cell = distributions.cell_parameters(table).iloc[0]
    a, b, c = real
    assert cell["c"] == pytest.approx(np.linalg.norm(c))
    expected = math.degrees(math.acos(b @ c / np.linalg.norm(b) / np.linalg.norm(c)))
    assert cell["alpha"] == pytest.approx(expected)
    assert cell["gamma"] == pytest.approx(math.degrees(math.acos(a @ b / 30.0 / np.linalg.norm(b))))


def test_equal_area_projection_fills_the_disc_evenly() -> None:
    directions = np.random.default_rng(0).normal(size=(20_000, 3))
    x, y = distributions._equal_area(directions)
    radius2 = x**2 + y**2
    assert radius2.max() <= 1.0 + 1e-12
    counts, _ = np.histogram(radius2, 10, (0, 1))
    np.testing.assert_allclose(counts, 2000, rtol=0.1)


def test_constant_images_have_a_range() -> None:
    low, high = intensity_range(np.full((4, 4), 7.0))
    assert low < 7.0 < high
