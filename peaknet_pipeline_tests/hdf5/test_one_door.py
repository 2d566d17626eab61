"""Only the room ``hdf5`` opens HDF5 files, and only it reads what is in a data set."""

import ast
from collections.abc import Iterator
from pathlib import Path

import peaknet_pipeline

PACKAGE = Path(peaknet_pipeline.__file__).parent
ROOM = PACKAGE / "hdf5"
DOORS = {"File", "h5f", "is_hdf5"}
OPEN_ONLY = {"listing.py"}
"""Who may open a file outside of :class:`LinkedFiles`, because it closes it again without looking inside."""


def uses_of_doors(source: str) -> Iterator[str]:
    """Yield what in a module's text can open an HDF5 file: ``h5py.File``, ``from h5py import File``, …"""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "h5py" and node.attr in DOORS:
                yield f"h5py.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "h5py":
            yield f"from {node.module} import {', '.join(name.name for name in node.names)}"
        elif isinstance(node, ast.ImportFrom) and any(name.name == "open_hdf5" for name in node.names):
            yield "open_hdf5"
        elif isinstance(node, ast.Import) and any(n.name == "h5py" and n.asname for n in node.names):
            yield "import h5py as another name"


def test_no_other_room_opens_hdf5_files() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {use}"
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(ROOM)
        for use in uses_of_doors(path.read_text())
        if not (use == "open_hdf5" and path.name in OPEN_ONLY)
    ]
    assert found == []


def test_every_way_to_open_a_file_is_recognised() -> None:
    ways = (
        "import h5py\nh5py.File('x')",
        "import h5py\nopener = h5py.File",
        "import h5py\nh5py.h5f.open(b'x')",
        "from h5py import File",
        "import h5py as h\nh.File('x')",
        "from peaknet_pipeline.hdf5.files import open_hdf5",
    )
    assert all(list(uses_of_doors(way)) for way in ways)
    assert not list(uses_of_doors("import h5py\nisinstance(x, h5py.Dataset)"))
