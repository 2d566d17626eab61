"""Stage results as Dagster metadata and check results."""

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow.parquet as pq

from peaknet_pipeline.schemas import SCHEMAS, Schema
from peaknet_pipeline.store.stage_result import StageResult
from peaknet_pipeline.tables import read_table, table_problems

if TYPE_CHECKING:
    from peaknet_pipeline.store.asset import Asset


def metadata_of(result: StageResult, tables: Iterable[str]) -> dict[str, Any]:
    """Return what the UI shows of a result: figures, row count, column schema, plots, paths."""
    metadata: dict[str, Any] = {name: _plain(value) for name, value in result.figures.items()}
    metadata["path"] = dg.MetadataValue.path(str(result.output))
    for name, png in result.plots.items():
        text = base64.b64encode(png).decode()
        metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{text})")
    for index, name in enumerate(tables):
        path = result.tables[name]
        if index == 0:
            metadata["dagster/row_count"] = pq.read_metadata(path).num_rows
            metadata["dagster/column_schema"] = column_schema(SCHEMAS[name])
        else:
            metadata[f"{name}_rows"] = pq.read_metadata(path).num_rows
        metadata[f"{name}_path"] = dg.MetadataValue.path(str(path))
    return metadata


def column_schema(schema: Schema) -> dg.TableSchema:
    """Return a table's declared columns as Dagster shows them, with unit chips."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                c.name,
                c.dtype,
                c.meaning,
                constraints=dg.TableColumnConstraints(nullable=c.nullable),
                tags={"unit": c.unit} if c.unit and c.unit.isascii() and "/" not in c.unit else {},
            )
            for c in schema.columns
        ]
    )


def check_results(result: StageResult, spec: "Asset") -> list[dg.AssetCheckResult]:
    """Return the verdicts: one per table from its schema, then the stage's own."""
    verdicts = [_schema_result(result, name) for name in spec.tables]
    own = {check.name: check for check in result.checks}
    for name in spec.checks:
        check = own[name]
        severity = dg.AssetCheckSeverity.ERROR if name in spec.blocking else dg.AssetCheckSeverity.WARN
        verdicts.append(
            dg.AssetCheckResult(
                check_name=name,
                passed=check.passed,
                description=check.description,
                severity=severity,
                metadata={k: _plain(v) for k, v in check.figures.items()},
            )
        )
    return verdicts


def _schema_result(result: StageResult, name: str) -> dg.AssetCheckResult:
    problems = table_problems(read_table(result.tables[name], SCHEMAS[name], check=False), SCHEMAS[name])
    return dg.AssetCheckResult(
        check_name=f"{name}_schema",
        passed=not problems,
        description="; ".join(problems) or "follows its schema",
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
