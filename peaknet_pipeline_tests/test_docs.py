"""The documentation hangs together: every link leads somewhere, records are numbered, the changelog knows this version."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "peaknet_pipeline" / "docs"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra [docs]")
def test_the_site_builds_and_every_link_in_it_leads_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    built = subprocess.run(
        [*command, "--config-file", ROOT / ".mkdocs.yml", "--site-dir", tmp_path / "site"],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "decisions" / "0001-floors.html").is_file()


def test_decision_records_are_numbered_without_holes_and_all_listed() -> None:
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    listed = (DOCS / "decisions" / "README.md").read_text()
    for number, path in enumerate(records, start=1):
        title = path.read_text().splitlines()[0]
        assert title.startswith(f"# {number}. "), path.name
        assert f"({path.name})" in listed, f"{path.name} is missing in decisions/README.md"


def test_the_changelog_has_a_section_for_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (DOCS / "changelog.md").read_text(), flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] in versions


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_runs_from_its_first_cell_to_its_last(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), (
        "clear the outputs first"
    )
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code"))
    ran = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=400, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
