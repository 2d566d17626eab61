"""Which frames of a run are worth a place in the next training set, and why."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.labels.curate import REASONS, CurationParams, rank_candidates
from peaknet_pipeline.provenance import Recipe, network_of, origin_of
from peaknet_pipeline.schemas import CURATION, INDEX, PEAKS
from peaknet_pipeline.store.asset import INFER, MISSING, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import FINDERS, curation_path, index_path, peaks_path
from peaknet_pipeline.store.run_files import read_context
from peaknet_pipeline.store.stage_result import StageResult
from peaknet_pipeline.tables import read_table, write_table


def curation(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Frames that could teach most, ranked with reasons: finders disagree, hits do not index, the network is unsure."""
    context = read_context(store, key)
    params = context.experiment.parameters("curation", CurationParams, overrides)
    output = curation_path(store, key)

    def build(recipe: Recipe) -> StageResult:
        classical, neural = (read_table(peaks_path(store, key, finder), PEAKS) for finder in FINDERS)
        lattices = {finder: read_table(index_path(store, key, finder), INDEX) for finder in FINDERS}
        table = rank_candidates(
            classical,
            neural,
            classical_lattices=lattices["classical"],
            neural_lattices=lattices["peaknet"],
            params=params,
        )
        network = network_of(peaks_path(store, key, "peaknet"))
        write_table(table, output, CURATION, extra=origin_of(recipe, run=key, **network))
        figures: dict[str, Any] = {"candidates": len(table), "model": network["model"]}
        given = table["reason"].str.split("; ").explode()
        figures |= {reason.replace(" ", "_"): int((given == reason).sum()) for reason in REASONS}
        return StageResult(output, figures, {"curation": output})

    inputs = [f(store, key, finder) for finder in FINDERS for f in (peaks_path, index_path)]
    return make_stage(
        "curation", parameters=params.to_dict(), inputs=[*inputs, *context.settings_files], build=build
    )


CURATION_ASSET = Asset(
    curation,
    job=INFER,
    output=curation_path,
    deps=("classical_peaks", "classical_index", "peaknet_peaks", "peaknet_index"),
    kinds=("parquet",),
    parameters=CurationParams,
    tables=("curation",),
    automation=MISSING,
)
