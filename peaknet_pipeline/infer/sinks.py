"""Where a stream's peaks go."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from peaknet_pipeline.atomic import replace_atomically
from peaknet_pipeline.infer.found import Found
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import arrow_schema, check_table, empty_table
from peaknet_pipeline.types import IntArray


class PeakSink(Protocol):
    """Takes a stream's batches in frame order, in one thread; an exception leaves nothing half-written."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish, or give up if there is an exception."""

    def write(self, found: Found, numbers: IntArray) -> None:
        """Take what was found in the frames of these ``numbers`` (n,)."""


class TableCollector:
    """Keeps all peaks in memory."""

    def __init__(self) -> None:
        self._parts: list[PeakTable] = []

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to finish."""

    def write(self, found: Found, numbers: IntArray) -> None:
        """Keep the peaks."""
        if len(found.peaks):
            self._parts.append(found.peaks)

    def table(self) -> PeakTable:
        """Return the peaks so far."""
        return pd.concat(self._parts, ignore_index=True) if self._parts else empty_table(PEAKS)


class ParquetSink:
    """Writes peaks to a Parquet file in row groups; the file takes its name only at a good end.

    Parameters
    ----------
    path : Path
    group_rows : int
        Rows gathered, in one place of fixed size, before they are written.
    extra : mapping, optional
        Goes into the file's key-value metadata (provenance).

    """

    def __init__(
        self, path: Path, *, group_rows: int = 50_000, extra: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        self._group_rows = group_rows
        schema = arrow_schema(PEAKS)
        added = {k.encode(): v.encode() for k, v in (extra or {}).items()}
        self._schema = schema.with_metadata({**(schema.metadata or {}), **added})
        self._gathered = {c.name: np.empty(group_rows, dtype=c.dtype) for c in PEAKS.columns}
        self._n_gathered = 0

    def __enter__(self) -> Self:
        """Open a temporary file beside the final one."""
        self._replace = replace_atomically(self.path)
        self._writer = pq.ParquetWriter(self._replace.__enter__(), self._schema, compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the file its name, or remove it if there is an exception."""
        try:
            if kind is None:
                self._flush()
            self._writer.close()
        except BaseException as error:
            self._replace.__exit__(type(error), error, error.__traceback__)
            raise
        self._replace.__exit__(kind, value, traceback)

    def write(self, found: Found, numbers: IntArray) -> None:
        """Check the peaks against the schema and write full row groups."""
        peaks = found.peaks
        check_table(peaks, PEAKS)
        done = 0
        while done < len(peaks):
            n = min(len(peaks) - done, self._group_rows - self._n_gathered)
            for name, values in self._gathered.items():
                values[self._n_gathered : self._n_gathered + n] = peaks[name].to_numpy()[done : done + n]
            self._n_gathered += n
            done += n
            if self._n_gathered == self._group_rows:
                self._flush()

    def _flush(self) -> None:
        """Write what is gathered as a row group."""
        if self._n_gathered:
            columns = [
                pa.array(values[: self._n_gathered], from_pandas=True) for values in self._gathered.values()
            ]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
            self._n_gathered = 0
