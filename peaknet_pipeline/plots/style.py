"""One look for all pictures: colours that colour-blind readers can tell apart, a unit on every axis."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FINDER_COLOURS = {"classical": "#0072B2", "peaknet": "#D55E00", "truth": "#009E73"}
"""Okabe and Ito (2008): blue, vermilion, bluish green."""

OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000")
FINDER_MARKERS = {"classical": "o", "peaknet": "s", "truth": "+", "found": "o", "predicted": "D"}
FINDER_NAMES = {"classical": "classical", "peaknet": "PeakNet", "truth": "truth"}
GREY = "#777777"
IMAGE_COLOURS = "cividis"
BACKGROUND = "#E4E4E4"
DPI = 110
IMAGE_LEVELS = 64
"""Steps of the colours of images: as many as eyes tell apart, few enough for a small file."""
PALETTE = 256

_STYLE = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E0E0E0",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **layout: Any
) -> "tuple[Figure, list[Axes]]":
    """Return a figure of ``width`` × ``height`` inches and its axes, row by row."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **layout)
    return figure, list(axes.flat)


def to_png(figure: "Figure") -> bytes:
    """Return the figure as PNG of at most 256 colours: a third of the bytes of one in true colour."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    told, canvas = PngInfo(), FigureCanvasAgg(figure)
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        canvas.draw()  # type: ignore[no-untyped-call]
    # The canvas knows its width: inches times dots per inch may lie a hair below it, and a wrong one shears the picture.
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    drawn = Image.fromarray(np.asarray(pixels)).convert("RGB")
    told.add_text("Software", "peaknet-pipeline")
    small = io.BytesIO()
    few = drawn.quantize(PALETTE, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(small, format="png", optimize=True, pnginfo=told)
    return small.getvalue()


def label_axes(axes: "Axes", title: str, x: str, y: str) -> None:
    """Set title and axis labels; a label carries its unit."""
    axes.set_title(plain(title), loc="left")
    axes.set_xlabel(plain(x))
    axes.set_ylabel(plain(y))


def plain(text: str) -> str:
    """Return text in which no dollar sign starts a formula."""
    return text.replace("$", r"\$")


def say_nothing(axes: "Axes", what: str = "nothing to show") -> None:
    """Write into empty axes why they are empty."""
    axes.text(0.5, 0.5, plain(what), ha="center", va="center", transform=axes.transAxes, color=GREY)


def colour_of(name: str, number: int = 0) -> str:
    """Return the colour of a finder; other names take theirs by number."""
    return FINDER_COLOURS.get(name, OTHER_COLOURS[number % len(OTHER_COLOURS)])


def name_of(finder: str) -> str:
    """Return a finder's name as readers know it."""
    return FINDER_NAMES.get(finder, finder)


def intensity_range(
    image: "np.ndarray[Any, Any]", low: float = 1.0, high: float = 99.7
) -> tuple[float, float]:
    """Return the percentiles between which an image is shown; (0, 1) for one without values."""
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    bottom, top = (float(v) for v in np.percentile(values, (low, high)))
    return (bottom, top) if top > bottom else (bottom - 0.5, bottom + 0.5)


def legend_below(axes: "Axes", entries: "Mapping[str, Any] | None" = None, *, dark: bool = False) -> None:
    """Put a legend beneath the whole figure, where it hides nothing; ``dark`` for markers drawn on images."""
    handles, names = axes.get_legend_handles_labels()
    if entries is not None:
        handles, names = list(entries.values()), list(entries)
    figure = axes.get_figure(root=True)
    if names and figure is not None:
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=min(len(names), 4),
            frameon=dark,
            facecolor="#2B3A5C",
            labelcolor="white" if dark else "black",
        )


def few_ticks(axes: "Axes", n: int = 4) -> None:
    """Leave at most ``n`` + 1 ticks on the horizontal axis, for narrow pictures."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(n))


def whole_ticks(axis: "Axis") -> None:
    """Put ticks at whole numbers only, for counts and numbers of panels."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
