"""One HTML page for an experiment: self-contained, every rate with its denominator, all text escaped."""

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.plots.style import name_of
from peaknet_pipeline.schemas import Scores

PNG_START = b"\x89PNG\r\n\x1a\n"

LARGE_PNG = 50_000
"""Bytes from which on a picture is worth storing as WebP."""

LONG_CELL = 60
"""Characters from which on a cell's text is broken into lines."""


@dataclass(frozen=True)
class Tile:
    """One figure in large type: what it is, the figure, and what it is made of."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class ReportFigure:
    """A PNG with a caption that tells what it shows, also to those who can't see it."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class ReportTable:
    """A table of ready-made text cells; the first ``n_text`` columns are text, the others figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    n_text: int = 1


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    heading: str
    text: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    tiles: tuple[Tile, ...] = ()
    wide: bool = False
    """Figures take the whole width, one below the other."""
    folded: bool = False
    """Closed until the reader opens it."""


def write_report(path: Path, *, title: str, sections: Sequence[Section], subtitle: str = "") -> None:
    """Write the page, atomically."""
    page = report_page(title=title, sections=sections, subtitle=subtitle)
    write_file(path, page)


def report_page(*, title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """Return the page as HTML that loads nothing from anywhere and runs its own script only, which its policy names by hash.

    Parameters
    ----------
    title, subtitle : str
        Experiment, and e.g. date and versions.
    sections : sequence of Section
        Those without any content are left out.

    """
    shown = [s for s in sections if s.text or s.tables or s.figures or s.tiles]
    pages = Environment(
        loader=PackageLoader("peaknet_pipeline"),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
    )
    style, script = (pages.get_template(f"report.{kind}").render().strip() for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return pages.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        sections=shown,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        source=_source,
        cell_class=_cell_class,
    )


def comparison_table(scores: Scores, *, caption: str = "") -> ReportTable:
    """Return the classical and the neural finder side by side: a row per run and finder, a total per finder.

    Every rate stands with the two counts it comes from.

    Parameters
    ----------
    scores : Scores

    """
    columns = (
        "run", "used for", "finder", "frames", "hits", "hit rate (hits / frames)", "indexed",
        "indexing rate (indexed hits / hits)", "indexing yield (indexed / frames)",
        "false-index control (indexed / scrambled)", "peaks", "precision", "recall", "frames/s",
    )  # fmt: skip
    ordered = scores.sort_values(["run", "finder"], kind="stable")
    rows = [_score_row(row) for row in ordered.to_dict("records")]
    totals = (
        [_score_row(total_scores(group)) for _, group in ordered.groupby("finder")] if len(scores) else []
    )
    chosen = (
        caption
        or "All rates with numerator / denominator; precision and recall against simulated truth where known."
    )
    return ReportTable(columns, tuple(rows + totals), chosen, n_text=3)


def total_scores(scores: Scores) -> dict[str, object]:
    """Add up the counts of one finder's runs; what cannot be added is NaN."""
    frames, hits, indexed = (int(scores[name].sum()) for name in ("frames", "hits", "indexed"))
    indexed_hits = sum(
        _part(rate, n) for rate, n in zip(scores["indexing_rate"], scores["hits"], strict=True)
    )
    scrambled = int(scores["scrambled"].sum())
    false = sum(
        _part(rate, n) for rate, n in zip(scores["false_index_rate"], scores["scrambled"], strict=True)
    )
    return {
        "run": f"all {len(scores)}",
        "subset": "",
        "finder": str(scores["finder"].iloc[0]),
        "frames": frames,
        "hits": hits,
        "indexed": indexed,
        "hit_rate": hits / frames if frames else math.nan,
        "indexing_rate": indexed_hits / hits if hits else math.nan,
        "indexing_yield": indexed / frames if frames else math.nan,
        "false_index_rate": false / scrambled if scrambled else math.nan,
        "scrambled": scrambled,
        "peaks": int(scores["peaks"].sum()),
        "precision": math.nan,
        "recall": math.nan,
        "frames_per_second": math.nan,
    }


def plain_table(table: pd.DataFrame, *, caption: str = "", n_text: int = 1) -> ReportTable:
    """Return any small table with its values as text."""
    rows = tuple(tuple(_cell(value) for value in row) for row in table.itertuples(index=False, name=None))
    return ReportTable(tuple(map(str, table.columns)), rows, caption, n_text)


def facts_table(facts: Mapping[str, object], *, caption: str = "") -> ReportTable:
    """Return names and values in two columns."""
    rows = tuple((name, _cell(value)) for name, value in facts.items())
    return ReportTable(("what", "value"), rows, caption, n_text=2)


def _score_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    frames, hits, indexed, scrambled = (int(row[k]) for k in ("frames", "hits", "indexed", "scrambled"))
    return (
        str(row["run"]),
        str(row["subset"]),
        name_of(str(row["finder"])),
        f"{frames:,}",
        f"{hits:,}",
        _share(row["hit_rate"], hits, frames),
        f"{indexed:,}",
        _share(row["indexing_rate"], _part(row["indexing_rate"], hits), hits),
        _share(row["indexing_yield"], indexed, frames),
        _share(row["false_index_rate"], _part(row["false_index_rate"], scrambled), scrambled),
        f"{int(row['peaks']):,}",
        _number(row["precision"], ".3f"),
        _number(row["recall"], ".3f"),
        _number(row["frames_per_second"], ".1f"),
    )


def _share(rate: object, part: int, whole: int) -> str:
    value = _float(rate)
    return f"{value:.1%} ({part:,} / {whole:,})" if math.isfinite(value) else f"— (0 / {whole:,})"


def _part(rate: object, whole: Any) -> int:
    """Return the count behind a rate."""
    value = _float(rate)
    return round(value * int(whole)) if math.isfinite(value) else 0


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) or hasattr(value, "__float__") else math.nan


def _number(value: object, style: str) -> str:
    number = _float(value)
    return format(number, style) if math.isfinite(number) else "—"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else "—"
    return str(value)


def _cell_class(value: str, is_text: bool) -> Markup:
    if len(value) > LONG_CELL:
        return Markup(' class="long"')
    return Markup(' class="text"') if is_text else Markup()


def _source(figure: ReportFigure) -> str:
    if not figure.png.startswith(PNG_START):
        raise ValueError(f"figure {figure.caption!r} is not a PNG")
    kind, image = _smallest(figure.png)
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _smallest(png: bytes) -> tuple[str, bytes]:
    """Return a picture's kind and bytes: lossy WebP for frames full of noise, the PNG itself for drawings."""
    if len(png) < LARGE_PNG:
        return "png", png
    from PIL import Image

    webp = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(webp, format="webp", quality=75)
    return min(("webp", webp.getvalue()), ("png", png), key=lambda kind_bytes: len(kind_bytes[1]))


def _printable(value: Any) -> Any:
    """Return text with spaces for control characters, which HTML forbids; what is marked as safe is this package's own."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else " " for c in value)
