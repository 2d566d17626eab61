"""The written-down releases cover what the package needs, each with hashes, and name no place that files come from."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PLATFORM = {"platform_system": "Linux", "sys_platform": "linux", "python_version": "3.11", "extra": ""}
LOCKS = (".ci/lock.txt", ".ci/lock-torch.txt")


def pins(name: str) -> dict[str, str]:
    """Return release by package of a file in pip's format."""
    lines = (ROOT / name).read_text().splitlines()
    found = [re.match(r"([a-z0-9][a-z0-9.-]*)==([^ ;]+)", line) for line in lines]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def needed() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [
        *project["dependencies"],
        *(t for extra in project["optional-dependencies"].values() for t in extra),
    ]
    wanted = [Requirement(text) for text in texts]
    return [one for one in wanted if one.marker is None or one.marker.evaluate(PLATFORM)]


def test_every_requirement_has_a_release_that_it_allows():
    """Where this fails: `.ci/lock` writes them down anew."""
    chosen = pins(".ci/constraints.txt")
    missing = [one.name for one in needed() if canonicalize_name(one.name) not in chosen]
    assert missing == [], "run .ci/lock"
    wrong = [str(one) for one in needed() if chosen[canonicalize_name(one.name)] not in one.specifier]
    assert wrong == [], "run .ci/lock"


def test_the_constraints_are_the_locks_releases():
    locked = [pins(name) for name in LOCKS]
    assert locked[0].keys().isdisjoint(locked[1])
    assert locked[0] | locked[1] == pins(".ci/constraints.txt")
    assert "torch" in locked[1]


@pytest.mark.parametrize("name", LOCKS)
def test_every_release_has_the_hashes_of_its_files_and_nothing_says_where_they_lie(name):
    text = (ROOT / name).read_text()
    blocks = re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", text).strip())
    for block in blocks:
        first, *others = block.split(" \\\n")
        assert re.fullmatch(r"\S+==\S+( ; .+)?", first), first
        assert others, first
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in others), first
    assert not re.search(r"://|--index|--find-links|@ |(?m:^/)", text)
