"""One HTML page for an experiment: self-contained, every rate with its denominator, all text escaped."""

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.plots.style import name_of
from peaknet_pipeline.schemas import Scores

PNG_START = b"\x89PNG\r\n\x1a\n"

LARGE_PNG = 50_000
"""Bytes from which on a picture is worth storing as WebP."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --page: #fff; --card: #f5f7f9; --line: #d8dee4;
  --accent: #0a58a0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb7; --page: #14181c; --card: #1e242a;
  --line: #38414a; --accent: #7cb8f0; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
  background: var(--page); margin: 0 auto; max-width: 76rem; padding: 1rem clamp(.8rem, 3vw, 2rem) 4rem; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); margin: 1rem 0 0; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { max-width: 68ch; } a { color: var(--accent); } .meta, figcaption, caption, td small { color: var(--soft); }
.meta { margin: .2rem 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; background: var(--card); border-radius: .5rem; padding: .6rem 1rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.tile { background: var(--card); border-radius: .5rem; padding: .7rem 1rem; }
.tile b { display: block; font-size: 1.55rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: .85rem; color: var(--soft); }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .2rem 0 .4rem; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .5rem; text-align: right; white-space: nowrap; }
th { background: var(--card); font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 4rem; }
td.text, th.text { text-align: left; } td.long { white-space: normal; min-width: 18rem; text-align: left; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.4rem; }
.figures.wide { grid-template-columns: 1fr; }
figure { margin: 0; } figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
@media (prefers-color-scheme: dark) { figure img { filter: brightness(.92); } }
figcaption { font-size: .88rem; margin-top: .4rem; max-width: 62ch; }
summary { cursor: pointer; } summary h2 { display: inline-block; border: 0; margin: .9rem 0 .3rem; font-size: 1.1rem; }
@media print { nav { display: none; } figure, .tile { break-inside: avoid; } }
"""
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
    """Return the page as HTML that loads nothing from anywhere.

    Parameters
    ----------
    title, subtitle : str
        Experiment, and e.g. date and versions.
    sections : sequence of Section
        Those without any content are left out.

    """
    shown = [s for s in sections if s.text or s.tables or s.figures or s.tiles]
    links = "".join(
        f'<a href="#s{i}">{_text(section.heading)}</a>'
        for i, section in enumerate(shown)
        if not section.folded
    )
    body = "\n".join(_section(i, section) for i, section in enumerate(shown))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{_text(title)}</h1><p class="meta">{_text(subtitle)}</p></header>
<nav aria-label="Sections">{links}</nav>
<main>
{body}
</main>
</body>
</html>
"""


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


def _section(number: int, section: Section) -> str:
    heading = f"<h2>{_text(section.heading)}</h2>"
    parts = [f"<details><summary>{heading}</summary>" if section.folded else heading]
    if section.tiles:
        parts += ['<div class="tiles">', *(_tile(tile) for tile in section.tiles), "</div>"]
    parts += [f"<p>{_text(paragraph)}</p>" for paragraph in section.text]
    parts += [_table(table) for table in section.tables]
    if section.figures:
        kind = "figures wide" if section.wide else "figures"
        parts += [f'<div class="{kind}">', *(_figure(figure) for figure in section.figures), "</div>"]
    parts += ["</details>"] if section.folded else []
    return "\n".join([f'<section id="s{number}">', *parts, "</section>"])


def _tile(tile: Tile) -> str:
    detail = f"<span>{_text(tile.detail)}</span>" if tile.detail else ""
    return f'<div class="tile"><span>{_text(tile.name)}</span><b>{_text(tile.value)}</b>{detail}</div>'


def _table(table: ReportTable) -> str:
    head = _cells(table.columns, table.n_text, "th")
    rows = "\n".join(f"<tr>{_cells(row, table.n_text, 'td')}</tr>" for row in table.rows)
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    inside = f"{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'


def _cells(values: Iterable[str], n_text: int, tag: str) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    return "".join(
        f"<{tag}{scope}{_cell_class(value, i < n_text)}>{_text(value)}</{tag}>"
        for i, value in enumerate(values)
    )


def _cell_class(value: str, is_text: bool) -> str:
    if len(value) > LONG_CELL:
        return ' class="long"'
    return ' class="text"' if is_text else ""


def _figure(figure: ReportFigure) -> str:
    if not figure.png.startswith(PNG_START):
        raise ValueError(f"figure {figure.caption!r} is not a PNG")
    kind, image = _smallest(figure.png)
    source = f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
    caption = _text(figure.caption)
    return f'<figure><img loading="lazy" src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _smallest(png: bytes) -> tuple[str, bytes]:
    """Return a picture's kind and bytes: lossy WebP for frames full of noise, the PNG itself for drawings."""
    if len(png) < LARGE_PNG:
        return "png", png
    from PIL import Image

    webp = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(webp, format="webp", quality=75)
    return min(("webp", webp.getvalue()), ("png", png), key=lambda kind_bytes: len(kind_bytes[1]))


def _text(text: str) -> str:
    """Escape text; control characters, which HTML forbids, become spaces."""
    return html.escape("".join(c if c.isprintable() or c == "\n" else " " for c in text))
