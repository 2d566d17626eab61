"""What a file says about its own making, whichever of this package's formats it has."""

import re
from pathlib import Path

import pyarrow as pa

from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.hdf5.attributes import read_attributes
from peaknet_pipeline.hdf5.files import DAMAGE, LinkedFiles
from peaknet_pipeline.runs.cxi import RESULT
from peaknet_pipeline.runs.masks import MASK_DATA
from peaknet_pipeline.tables import read_table_metadata

START_BYTES = 4096
"""A text names its maker, and a picture its program, within this many bytes."""

MADE_BY = re.compile(r"^(?:; made by )?(peaknet [a-z][a-z-]*)\r?$", re.MULTILINE)
"""A comment of a ``.geom`` or ``.cell``, or the line of a stream's header that holds its command."""


def told_inside(path: Path) -> dict[str, str]:
    """Return what a file says of its own making, above all ``stage``, such as ``peaknet find``; empty where it says nothing.

    Pictures of this package name the stage ``peaknet``, whichever command drew them.
    """
    if not path.is_file():
        return {}
    try:
        if path.suffix == ".json":
            return _told_by_card(path)
        with path.open("rb") as stream:
            start = stream.read(START_BYTES)
        if start.startswith(b"PAR1"):
            return read_table_metadata(path)
        if start.startswith(b"\x89HDF"):
            return _told_by_hdf5(path)
    except (PeaknetError, pa.ArrowException, *DAMAGE):
        return {}
    if start.startswith(b"\x89PNG"):
        return {"stage": "peaknet"} if b"Software\0peaknet-pipeline" in start else {}
    found = MADE_BY.search(start.decode("utf-8", errors="replace"))
    return {"stage": found[1]} if found else {}


def _told_by_card(path: Path) -> dict[str, str]:
    from peaknet_pipeline.learn.checkpoint import CARD_FILE, read_card

    if path.name != CARD_FILE:
        return {}
    card = read_card(path.parent)
    names = {"code_version": card.code_version, "model": card.name}
    return names | {"label_manifest": card.training_manifest, "stage": "network"}


def _told_by_hdf5(path: Path) -> dict[str, str]:
    """Read the attributes of the file, of its peak list and of its mask."""
    with LinkedFiles(path) as files:
        attributes = read_attributes(files.file)
        told = {"stage": "peaknet simulate"} if "simulated" in attributes else {}
        for node in (files.find(place) for place in ("/", RESULT, MASK_DATA)):
            if node is not None:
                told |= {
                    name: str(value) for name, value in read_attributes(node).items() if name != "simulated"
                }
    return told
