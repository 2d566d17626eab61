"""The report is one valid page that loads nothing, shows every denominator and escapes its text."""

import base64
import hashlib
import html
import html.parser
import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from peaknet_pipeline.plots.images import plot_image
from peaknet_pipeline.report import (
    ReportFigure,
    ReportTable,
    Section,
    comparison_table,
    facts_table,
    plain_table,
    report_page,
    total_scores,
    write_report,
)
from peaknet_pipeline.schemas import SCORES, Scores
from peaknet_pipeline.tables import empty_table, make_table

VOID = {"meta", "img", "br", "hr", "link", "input"}


class StrictParser(html.parser.HTMLParser):
    """Raises on a tag that is not closed in order, on a doubled id, and gathers text and references."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"doubled attribute in {tag}"
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        self.references += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "data") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> StrictParser:
    parser = StrictParser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    return parser


def scores(**changes: object) -> Scores:
    row: dict[str, object] = {
        "experiment": "demo", "run": "demo-r0001", "subset": "test", "finder": "classical", "frames": 120,
        "hits": 48, "indexed": 37, "hit_rate": 0.4, "indexing_rate": 36 / 48, "indexing_yield": 37 / 120,
        "false_index_rate": 2 / 60, "scrambled": 60, "peaks": 1234, "precision": 0.9, "recall": 0.5,
        "frames_per_second": 33.0, "residual": 4e-4, "model": "",
        "label_manifest": "", "mean_peaks": 12.0, "resolution": 2.1, "parameters": "abc", "code_version": "0.1",
    }  # fmt: skip
    return make_table(SCORES, {name: [value] for name, value in {**row, **changes}.items()})


PNG = plot_image(np.arange(12.0).reshape(3, 4), title="t")


def test_page_is_valid_and_loads_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    sections = [
        Section("Comparison", ("Two finders.",), (comparison_table(scores()),)),
        Section("Figures", figures=(ReportFigure(PNG, "a powder"),)),
    ]
    write_report(out, title="demo", sections=sections, subtitle="version 1")
    parser = parse(out.read_text(encoding="utf-8"))
    assert parser.ids == ["s0", "s1"]
    assert all(reference.startswith(("#s", "data:image/png;base64,")) for reference in parser.references)
    assert parser.tags.count("script") == 1
    assert parser.tags.count("img") == 1
    assert [p.name for p in out.parent.iterdir()] == ["report.html"]


def test_noisy_frames_are_stored_small_and_look_the_same() -> None:
    """A frame of pure noise, the worst case, takes under 240 kB; decoded, it differs by a few grey levels."""
    frame = np.random.default_rng(1).poisson(30.0, (900, 900)).astype(np.float64)
    png = plot_image(frame, title="noise")
    page = report_page(title="t", sections=[Section("s", figures=(ReportFigure(png, "a frame"),))])
    (reference,) = (r for r in parse(page).references if r.startswith("data:"))
    kind, data = reference.split(";base64,")
    assert kind == "data:image/webp"
    assert len(data) < 320_000
    shown, drawn = (
        np.asarray(Image.open(io.BytesIO(b)).convert("L"), float) for b in (base64.b64decode(data), png)
    )
    assert np.abs(shown - drawn).mean() < 12


def test_every_rate_stands_with_its_counts() -> None:
    table = comparison_table(scores())
    (row, total) = table.rows
    shown = dict(zip(table.columns, row, strict=True))
    assert shown["hit rate (hits / frames)"] == "40.0% (48 / 120)"
    assert shown["indexing rate (indexed hits / hits)"] == "75.0% (36 / 48)"
    assert shown["indexing yield (indexed / frames)"] == "30.8% (37 / 120)"
    assert shown["false-index control (indexed / scrambled)"] == "3.3% (2 / 60)"
    assert total[0] == "all 1"


def test_totals_add_counts_not_rates() -> None:
    both = pd.concat([scores(), scores(run="demo-r0002", frames=1000, hits=10, indexed=5, hit_rate=0.01,
                                       indexing_rate=0.5, indexing_yield=0.005)])  # fmt: skip
    total = total_scores(both)
    assert (total["frames"], total["hits"], total["indexed"]) == (1120, 58, 42)
    assert total["hit_rate"] == pytest.approx(58 / 1120)
    assert total["indexing_rate"] == pytest.approx(41 / 58)
    assert total["false_index_rate"] == pytest.approx(4 / 120)


def test_unknown_rates_are_dashes_with_their_denominator() -> None:
    table = comparison_table(scores(hits=0, indexing_rate=math.nan, recall=math.nan, scrambled=0,
                                    false_index_rate=math.nan))  # fmt: skip
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    assert shown["indexing rate (indexed hits / hits)"] == "— (0 / 0)"
    assert shown["recall"] == "—"


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a & b < c",
    "nul\x00 bell\x07",
    "</style>",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_from_outside_is_escaped(hostile: str) -> None:
    sections = [
        Section(
            hostile,
            (hostile,),
            (ReportTable((hostile,), ((hostile,),), hostile),),
            (ReportFigure(PNG, hostile),),
        ),
        Section("facts", tables=(facts_table({hostile: hostile}), comparison_table(scores(run=hostile)))),
    ]
    page = report_page(title=hostile, subtitle=hostile, sections=sections)
    parser = parse(page)
    assert parser.tags.count("script") == 1
    assert parser.tags.count("img") == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page)
    if hostile.isprintable():
        assert "".join(parser.text).count(hostile) == 13


def test_empty_sections_are_left_out() -> None:
    page = report_page(title="t", sections=[Section("nothing"), Section("text", ("here",))])
    assert "nothing" not in page
    assert parse(page).ids == ["s0"]


def test_no_scores_give_a_table_without_rows() -> None:
    assert comparison_table(empty_table(SCORES)).rows == ()


def test_only_pngs_are_embedded() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        report_page(title="t", sections=[Section("f", figures=(ReportFigure(b"<svg>", "x"),))])


def test_plain_tables_keep_their_values() -> None:
    table = plain_table(pd.DataFrame({"panel": [0, 1], "shift / px": [0.123456789, math.nan]}), caption="c")
    assert table.rows == (("0", "0.12346"), ("1", "—"))


def test_the_policy_lets_the_page_run_its_own_script_alone() -> None:
    page = report_page(title="t", sections=[Section("<script>alert(1)</script>", ("here",))])
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy)
    assert "unsafe-inline" not in html.unescape(policy).split("script-src")[1]
    assert "default-src 'none'" in html.unescape(policy)
