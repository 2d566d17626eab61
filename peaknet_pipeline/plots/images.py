"""Pictures of the detector: virtual powder, mask, frames with their peaks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.plots.style import (
    BACKGROUND,
    FINDER_MARKERS,
    IMAGE_COLOURS,
    IMAGE_LEVELS,
    colour_of,
    intensity_range,
    label_axes,
    legend_below,
    name_of,
    new_figure,
    to_png,
)
from peaknet_pipeline.types import BoolArray, Float64Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = npt.NDArray[Any]
Extent = tuple[float, float, float, float]
MOST_DOTS = 4000
Ring = tuple[float, str]
"""Radius in pixels from the origin, and what is written beside it."""


@dataclass(frozen=True)
class FramePicture:
    """An assembled frame (rows, columns), each finder's peaks (n, 2) in laboratory pixels, and a title."""

    image: Image
    peaks: Mapping[str, Float64Array]
    title: str


def plot_image(
    image: Image, *, title: str, unit: str = "adu", extent: Extent | None = None, rings: Sequence[Ring] = ()
) -> bytes:
    """Draw an assembled image, e.g. a virtual powder.

    Parameters
    ----------
    image : (rows, columns)
        As ``geometry.assemble`` gives; NaN where there is no good pixel.
    title : str
    unit : str
        Of the values.
    extent : tuple, optional
        left, right, bottom, top in laboratory pixels (``image_extent``); else pixels from the upper left.
    rings : sequence of (radius, text)
        Circles around the origin, in pixels; they need ``extent``.

    """
    figure, (axes,) = _image_figure(_height(np.shape(image), extent, 8.0))
    shown = _draw(axes, np.asarray(image, dtype=np.float64), extent)
    figure.colorbar(shown, ax=axes, label=f"intensity / {unit}", fraction=0.04, pad=0.02, extend="both")
    _draw_rings(axes, rings if extent else ())
    _label_image(axes, title, extent)
    return to_png(figure)


def plot_mask(
    image: Image,
    *,
    title: str,
    extent: Extent | None = None,
    reasons: Sequence[str] = ("bad",),
    stack: Image | None = None,
) -> bytes:
    """Draw an assembled mask: k where the k-th of the ``reasons`` (from 1) makes a pixel bad, 0 good, NaN no panel.

    ``stack``, (n_panels, ss, fs), holds the same values before the assembly: the pixels to count, since a turned panel
    has more or fewer places in the picture than pixels. The picture's own are counted without it.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    figure, (axes,) = _image_figure(_height(np.shape(image), extent, 8.8))
    values = np.asarray(image, dtype=np.float64)
    colours = {"good": "#F5F5F5", **dict(zip(reasons, _reason_colours(len(reasons)), strict=True))}
    colours["no panel"] = "#444444"
    last = len(colours) - 1
    # A single bad pixel must survive the reduction to the picture's size.
    shown = _reduce(values, 900)
    axes.imshow(
        np.where(np.isnan(shown), last, shown),
        cmap=ListedColormap(list(colours.values())), vmin=0, vmax=last, interpolation="none",
        extent=extent or _own_extent(values),
    )  # fmt: skip
    for number, colour in list(enumerate(colours.values()))[1:last]:
        _mark_few(axes, values == number, extent or _own_extent(values), colour)
    counted = values if stack is None else np.asarray(stack)
    n_bad, n_pixels = int((counted > 0).sum()), int(np.isfinite(counted).sum())
    names = {
        f"{n} ({int((counted == k).sum())})" if 0 < k < last else n: c
        for k, (n, c) in enumerate(colours.items())
    }
    legend_below(axes, {name: Patch(facecolor=c, edgecolor="black", lw=0.4) for name, c in names.items()})
    share = n_bad / n_pixels if n_pixels else 0.0
    _label_image(axes, f"{title}\n{n_bad} of {n_pixels} pixels bad ({share:.2%})", extent)
    return to_png(figure)


def _reason_colours(n: int) -> list[str]:
    """Return n colours, the first the one that means bad."""
    base = (
        "#D55E00",
        "#0072B2",
        "#CC79A7",
        "#009E73",
        "#E69F00",
        "#56B4E9",
        "#882255",
        "#999933",
        "#AA4499",
        "#117733",
    )
    return [base[k % len(base)] for k in range(n)]


def draw_frame_peaks(
    image: Image,
    peaks: Mapping[str, Float64Array],
    *,
    title: str,
    extent: Extent | None = None,
    unit: str = "adu",
    window: Extent | None = None,
) -> "Figure":
    """Draw a frame with the peaks of each finder, and the truth where it is known.

    Parameters
    ----------
    image : (rows, columns)
        Assembled frame.
    peaks : mapping of name to (n, 2) float64
        x, y of each finder's peaks in the coordinates of ``extent``; names ``classical``, ``peaknet``,
        ``truth``.
    extent : tuple, optional
        left, right, bottom, top in laboratory pixels.
    window : tuple, optional
        left, right, bottom, top of the part to show; all by default.

    """
    figure, (axes,) = _image_figure(_height(np.shape(image), window or extent, 8.0) + 0.4)
    _draw_marked(figure, axes, FramePicture(image, peaks, title), extent, unit)
    legend_below(axes, dark=True)
    if window:
        axes.set_xlim(window[0], window[1])
        axes.set_ylim(window[2], window[3])
    return figure


def _draw_marked(
    figure: "Figure", axes: "Axes", picture: FramePicture, extent: Extent | None, unit: str
) -> None:
    shown = _draw(axes, np.asarray(picture.image, dtype=np.float64), extent, high=99.9)
    figure.colorbar(shown, ax=axes, label=f"intensity / {unit}", fraction=0.04, pad=0.02, extend="both")
    sizes = {"classical": 70.0, "peaknet": 110.0, "truth": 30.0, "found": 110.0, "predicted": 22.0}
    for number, (name, positions) in enumerate(picture.peaks.items()):
        marker = FINDER_MARKERS.get(name, "D")
        colour = _on_image(name, number)
        places = np.asarray(positions, dtype=np.float64).reshape(-1, 2)
        axes.scatter(
            places[:, 0],
            places[:, 1],
            s=sizes.get(name, 50.0),
            marker=marker,
            linewidths=1.1,
            label=f"{name_of(name)} ({len(places)})",
            c=colour if marker == "+" else None,
            facecolors=None if marker == "+" else "none",
            edgecolors=None if marker == "+" else colour,
        )
    _label_image(axes, picture.title, extent)


def plot_frames(
    pictures: Sequence[FramePicture], *, extent: Extent | None = None, unit: str = "adu"
) -> bytes:
    """Draw several frames side by side, each with its peaks; see :func:`draw_frame_peaks`."""
    shape = np.shape(pictures[0].image)
    figure, axes = new_figure(8.0 * len(pictures), _height(shape, extent, 8.0) + 0.4, columns=len(pictures))
    figure.set_layout_engine("compressed")
    for one, picture in zip(axes, pictures, strict=True):
        _draw_marked(figure, one, picture, extent, unit)
    names = {
        name_of(n): h for n, h in zip(pictures[0].peaks, axes[0].get_legend_handles_labels()[0], strict=True)
    }
    legend_below(axes[0], names, dark=True)
    return to_png(figure)


def plot_frame_peaks(image: Image, peaks: Mapping[str, Float64Array], **options: Any) -> bytes:
    """Return the picture of :func:`draw_frame_peaks` as PNG."""
    return to_png(draw_frame_peaks(image, peaks, **options))


def _mark_few(axes: "Axes", marked: BoolArray, extent: Extent, colour: str) -> None:
    """Mark single bad pixels with dots: one pixel is less than a dot of the picture."""
    rows, columns = np.nonzero(marked)
    if not 0 < len(rows) <= MOST_DOTS:
        return
    left, right, bottom, top = extent
    x = left + (columns + 0.5) * (right - left) / marked.shape[1]
    y = top + (rows + 0.5) * (bottom - top) / marked.shape[0]
    axes.scatter(x, y, s=7, c=colour, lw=0)


def _image_figure(height: float) -> "tuple[Figure, list[Axes]]":
    """Return a figure whose layout leaves room for the labels of axes of a fixed aspect."""
    figure, axes = new_figure(8.0, height)
    figure.set_layout_engine("compressed")
    return figure, axes


def _height(shape: tuple[int, ...], extent: Extent | None, width: float) -> float:
    """Return the height in inches at which an image of this shape fills a figure without empty bands."""
    left, right, bottom, top = extent or (0.0, float(shape[1]), float(shape[0]), 0.0)
    ratio = abs(top - bottom) / max(abs(right - left), 1e-9)
    return float(np.clip((width - 2.0) * ratio + 1.1, 3.0, 14.0))


def _draw(axes: "Axes", values: Float64Array, extent: Extent | None, high: float = 99.7) -> Any:
    import matplotlib as mpl

    low, top = intensity_range(values, high=high)
    colours = mpl.colormaps[IMAGE_COLOURS].resampled(IMAGE_LEVELS).with_extremes(bad=BACKGROUND)
    # Few, bright pixels must survive the reduction to the picture's size: the maximum of each block is shown.
    reduced = _reduce(values, 900)
    return axes.imshow(
        reduced, cmap=colours, vmin=low, vmax=top, extent=extent or _own_extent(values), interpolation="none"
    )


def _own_extent(values: Float64Array) -> Extent:
    return (-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5)


def _reduce(values: Float64Array, side: int) -> Float64Array:
    """Return the image reduced to at most about ``side`` pixels a side, by the maximum of each block."""
    factor = -(-max(values.shape) // side)
    if factor <= 1:
        return values
    padded = np.full([-(-n // factor) * factor for n in values.shape], -np.inf)
    padded[: values.shape[0], : values.shape[1]] = np.where(np.isnan(values), -np.inf, values)
    blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor).max(axis=(1, 3))
    return np.where(np.isneginf(blocks), np.nan, blocks)


def _draw_rings(axes: "Axes", rings: Sequence[Ring]) -> None:
    from matplotlib.patches import Circle

    for radius, text in rings:
        axes.add_patch(Circle((0.0, 0.0), radius, fill=False, color="white", lw=0.8, ls="--"))
        side = radius / np.sqrt(2)
        box = {"facecolor": "#2B3A5C", "edgecolor": "none", "pad": 1.5}
        axes.text(
            side, side, text, color="white", fontsize=10, ha="center", va="center", bbox=box, clip_on=True
        )


def _label_image(axes: "Axes", title: str, extent: Extent | None) -> None:
    axes.grid(visible=False)
    origin = "from the beam" if extent else "from the corner"
    label_axes(axes, title, f"x {origin} / px", f"y {origin} / px")


def _on_image(name: str, number: int) -> str:
    """Return a colour that stands out on the image's blues and yellows."""
    return {
        "classical": "#FFFFFF",
        "peaknet": "#FF7F0E",
        "truth": "#7CFC9A",
        "found": "#FFFFFF",
        "predicted": "#FF7F0E",
    }.get(name, colour_of(name, number))
