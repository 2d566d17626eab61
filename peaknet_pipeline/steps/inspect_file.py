"""What a file is, whichever it is: a raw run, geometry, cell, table, CXI list, stream or model; see ``peaknet inspect``."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from peaknet_pipeline.errors import PeaknetError, RunError, printable
from peaknet_pipeline.records import describe
from peaknet_pipeline.runs.inspect import Inspection, inspect_path
from peaknet_pipeline.runs.masks import is_written_mask
from peaknet_pipeline.schemas import SCHEMAS
from peaknet_pipeline.steps.peak_record import FRAME_VALUES
from peaknet_pipeline.tables import read_table, read_table_metadata, table_problems

LEFT_OUT = (*FRAME_VALUES, "inputs", "parameters", "table", "meaning")
"""Long values in a table's metadata: the trace tells them."""


def inspect_file(
    path: Path, *, geometry: Path | None = None, data_path: str | None = None, roots: Sequence[Path] = ()
) -> Inspection:
    """Describe any file of this pipeline's world and list everything that is wrong with it; never raises for a bad file.

    Parameters
    ----------
    path : Path
        Raw run (file, or directory of a EuXFEL run), ``.geom``, ``.cell`` or ``.pdb``, ``.parquet``, ``.stream``, or a
        model's folder.
    geometry : Path, optional
        To read a raw run with, or a stream that embeds none.
    data_path : str, optional
        HDF5 path of a raw run's frames.
    roots : sequence of Path
        Folders that a raw run's links may lead into, besides its own.

    """
    report = Inspection(path)
    try:
        look = _look_for(path, geometry)
        if not path.exists():
            raise RunError("no such file", where=path, remedy="Check the path.")
        if look is not None:
            look(report)
        else:
            report = inspect_path(path, geometry, data_path=data_path, more_roots=roots)
    except PeaknetError as error:
        report.problems.append(str(error))
    except Exception as error:  # a file can be wrong in ways that no reader foresaw: that is what is told
        report.problems.append(
            printable(f"{path}: cannot be read ({type(error).__name__}: {describe(error)})")
        )
    return report


def _look_for(path: Path, geometry: Path | None) -> Callable[[Inspection], None] | None:
    if path.is_dir():
        from peaknet_pipeline.learn.checkpoint import CARD_FILE

        if (path / CARD_FILE).is_file():
            return _inspect_model
    looks: dict[str, Callable[[Inspection], None]] = {
        ".parquet": _inspect_table,
        ".cell": _inspect_cell,
        ".pdb": _inspect_cell,
        ".cif": _inspect_cell,
        ".mmcif": _inspect_cell,
        ".stream": partial(_inspect_stream, geometry=geometry),
    }
    suffix = path.suffix.lower()
    looks |= (
        dict.fromkeys(PACKED, _refuse_packed) | dict.fromkeys(TEXTS, _refuse_text) | {".npy": _inspect_mask}
    )
    if suffix in HDF5_MASKS and is_written_mask(path):
        return _inspect_mask
    return looks.get(suffix)


PACKED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}
"""Packed files, by their ending, and what unpacks them."""

TEXTS = (".csv", ".txt", ".tsv", ".json", ".yaml", ".png", ".log")
"""Files that are none of this world's, whatever they hold."""

HDF5_MASKS = (".h5", ".hdf5")


def _refuse_packed(report: Inspection) -> None:
    report.kind = "packed file"
    program = PACKED[report.path.suffix.lower()]
    report.problems.append(f"{report.path}: is packed. Unpack it first: `{program} {report.path}`.")


def _refuse_text(report: Inspection) -> None:
    report.kind = f"{report.path.suffix[1:].upper()} file"
    report.problems.append(
        f"{report.path}: is no run, geometry, cell, mask, table, stream or network, and no command reads it."
    )


def _inspect_mask(report: Inspection) -> None:
    """Describe a mask: True is bad, as commands take it by --mask."""
    from peaknet_pipeline.runs.masks import read_mask

    report.kind = "mask"
    bad, sources = read_mask(report.path)
    n_bad = int(bad.sum())
    report.facts |= {
        "stack (panels, ss, fs)": list(bad.shape),
        "bad pixels": n_bad,
        "bad pixels, share": n_bad / bad.size if bad.size else 0.0,
        "reasons": {source.name: source.n_bad for source in sources},
    }
    if n_bad > bad.size / 2:
        report.doubts.append(
            "More than half of the pixels are bad: does 1 mean good here? See --invert-mask."
        )


def _inspect_table(report: Inspection) -> None:
    report.kind = "Parquet table"
    metadata, n_rows = read_table_metadata(report.path), pq.read_metadata(report.path).num_rows
    report.facts["rows"] = n_rows
    schema = SCHEMAS.get(metadata.get("table", ""))
    if schema is None:
        report.doubts.append("The table is not one of this package's: it names no schema.")
        return
    report.kind = f"table {schema.name}"
    report.facts["meaning"] = schema.meaning
    report.facts |= {name: value for name, value in metadata.items() if value and name not in LEFT_OUT}
    table = read_table(report.path, schema, check=False)
    report.problems += [f"{report.path}: {problem}" for problem in table_problems(table, schema)]


def _inspect_cell(report: Inspection) -> None:
    from peaknet_pipeline.indexing.cell import (
        read_cell,
    )  # each kind's own libraries, of seconds to import, are its own

    report.kind = "unit cell"
    report.facts |= asdict(read_cell(report.path))


def _inspect_stream(report: Inspection, *, geometry: Path | None) -> None:
    from peaknet_pipeline.geometry.crystfel import read_geometry
    from peaknet_pipeline.indexing.stream_read import read_stream

    report.kind = "CrystFEL stream"
    stream = read_stream(report.path, geometry=read_geometry(geometry) if geometry is not None else None)
    report.facts |= {
        "frames": len(stream.image_path),
        "image files": len(set(stream.image_path.values())),
        "peaks": len(stream.peaks),
        "crystals": len(stream.lattices),
        "indexed frames": int(stream.lattices["frame"].nunique()),
        "indexed by": dict(Counter(stream.indexed_by.values())),
    }


def _inspect_model(report: Inspection) -> None:
    from peaknet_pipeline.learn.checkpoint import read_checkpoint
    from peaknet_pipeline.learn.model import count_parameters

    report.kind = "network"
    model = read_checkpoint(report.path)
    card = {name: value for name, value in asdict(model.card).items() if value not in ("", {}, None)}
    report.facts |= {"parameters": count_parameters(model.model.config)["total"], **card}


def format_inspection(report: Inspection) -> str:
    """Return an inspection for a terminal: facts, then every problem, then every doubt."""
    lines = [f"{report.path}: {report.kind}", ""]
    lines += [f"  {name:<24}  {value}" for name, value in _plain_facts(report.facts)]
    for title, texts in (
        ("problems that keep it from being processed", report.problems),
        ("doubts worth a look", report.doubts),
    ):
        lines += ["", f"{len(texts)} {title}"] if texts else []
        lines += [f"  {number}. {text}" for number, text in enumerate(texts, start=1)]
    return "\n".join([*lines, "", "usable" if report.is_usable else "not usable as it is"])


def _plain_facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            for inner, one in value.items():
                yield f"{name}: {inner}", _plain(one)
        elif name == "data sets":
            yield from ((name if not i else "", str(one)) for i, one in enumerate(value))
        else:
            yield name, _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        pair = len(value) == 2 and all(isinstance(one, float) for one in value)
        if pair and value[0] == value[1]:
            return _plain(value[0])
        return (" … " if pair else ", ").join(_plain(one) for one in value)
    return str(value)
