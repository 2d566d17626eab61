"""Tracing: every file of a chain is found, and whatever changed or went missing is told."""

from pathlib import Path

import pytest

from peaknet_pipeline.errors import TableError
from peaknet_pipeline.learn.checkpoint import ModelCard, write_checkpoint
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.provenance import make_recipe, origin_of, write_recipe
from peaknet_pipeline.schemas import INDEX, PEAKS
from peaknet_pipeline.store.trace import Step, format_trace, trace_file
from peaknet_pipeline.tables import empty_table, write_table


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, Path]:
    """A raw file, peaks made from it, and lattices made from both."""
    names = {"raw": "r0001.h5", "peaks": "peaks.parquet", "lattices": "lattices.parquet"}
    files = {name: tmp_path / file for name, file in names.items()}
    files["raw"].write_bytes(b"frames")
    peaks = make_recipe("classical_peaks", code="1", parameters={"snr": 5}, inputs=[files["raw"]])
    write_table(empty_table(PEAKS), files["peaks"], PEAKS, extra=origin_of(peaks, run="lyso-r0001"))
    write_recipe(files["peaks"], peaks, seconds=1.0)
    lattices = make_recipe("index", code="1", parameters={}, inputs=[files["peaks"], files["raw"]])
    origin = origin_of(lattices, run="lyso-r0001", model="student-1f2e", manifest="1f2e3d4c")
    write_table(empty_table(INDEX), files["lattices"], INDEX, extra=origin)
    write_recipe(files["lattices"], lattices, seconds=1.0)
    return files


def problems(step: Step) -> dict[str, tuple[str, ...]]:
    """Return the problems by file name."""
    return {s.path.name: s.problems for s in step.walk() if s.problems}


def test_the_chain_goes_from_a_table_up_to_the_raw_run(chain):
    step = trace_file(chain["lattices"])
    assert [s.path.name for s in step.inputs] == ["peaks.parquet", "r0001.h5"]
    assert [s.path.name for s in step.inputs[0].inputs] == ["r0001.h5"]
    assert step.origin["run"] == "lyso-r0001"
    assert step.origin["model"] == "student-1f2e"
    assert step.origin["label_manifest"] == "1f2e3d4c"
    assert {"code_version", "parameters_hash", "recipe", "made", "stage"} <= set(step.origin)
    assert problems(step) == {}
    assert "problems  none" in format_trace(step)


def test_a_copied_table_tells_its_origin_without_its_recipe(chain, tmp_path):
    copy = tmp_path / "elsewhere" / "copy.parquet"
    copy.parent.mkdir()
    copy.write_bytes(chain["lattices"].read_bytes())
    assert [s.path.name for s in trace_file(copy).inputs] == ["peaks.parquet", "r0001.h5"]


def test_a_changed_raw_run_is_told_at_every_place_it_was_used(chain):
    chain["raw"].write_bytes(b"other frames")
    step = trace_file(chain["lattices"])
    assert problems(step) == {"r0001.h5": ("changed since the output above was made from it",)}
    assert sum(bool(s.problems) for s in step.walk()) == 2


def test_an_altered_or_missing_table_is_told(chain):
    write_table(empty_table(PEAKS), chain["peaks"], PEAKS, extra={"touched": "yes"})
    assert problems(trace_file(chain["lattices"])) == {
        "peaks.parquet": ("its content is not what was written",)
    }
    chain["peaks"].unlink()
    assert problems(trace_file(chain["lattices"])) == {"peaks.parquet": ("missing",)}
    assert "✗ missing" in format_trace(trace_file(chain["lattices"]))


def test_a_model_folder_with_other_weights_than_its_card_is_told(tmp_path):
    model = build_model(named_scale("edge-small"), seed=1)
    card = ModelCard(name="student", training_manifest="1f2e3d4c")
    folder = write_checkpoint(tmp_path / "student", model, card=card)
    assert problems(trace_file(folder)) == {}
    assert trace_file(folder).origin["label_manifest"] == "1f2e3d4c"
    other = write_checkpoint(
        tmp_path / "other", build_model(named_scale("edge-small"), seed=2), card=ModelCard(name="other")
    )
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert problems(trace_file(folder)) == {
        "card.json": ("model.safetensors is not what the card was written for",)
    }


def test_a_file_without_an_origin_is_refused_with_what_was_looked_for(chain):
    with pytest.raises(TableError, match=r"r0001\.h5\.recipe\.json beside it"):
        trace_file(chain["raw"])
    with pytest.raises(TableError, match="no such file"):
        trace_file(chain["raw"].with_name("gone.parquet"))
