"""Labels that did not pass their blocking checks never teach."""

import json

import pytest

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.provenance import recipe_path
from peaknet_pipeline.stages.peak_labels import GATES, label_problems
from peaknet_pipeline.stages.training_set import training_set
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import labels_path

KEYS = ("lyso-r0001", "lyso-r0002")


def record_checks(store, key, **passed):
    path = labels_path(store, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"labels")
    checks = [{"name": n, "passed": p, "description": f"{n} said so"} for n, p in passed.items()]
    record = {"checks": checks, "stage": "peak_labels", "content": "", "stamp": stamp(path)}
    recipe_path(path).write_text(json.dumps(record))


def stamp(path):
    state = path.stat()
    return f"{state.st_size}-{state.st_mtime_ns}"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.mark.parametrize("name", GATES)
def test_a_label_file_that_failed_a_blocking_check_is_refused_with_the_checks_words(store, name):
    record_checks(store, KEYS[0], **{name: False, "labels_are_true": True})
    record_checks(store, KEYS[1], **dict.fromkeys(GATES, True), labels_are_true=False)
    assert label_problems(labels_path(store, KEYS[0])) == f"{name}: {name} said so"
    assert label_problems(labels_path(store, KEYS[1])) == ""


def test_when_every_run_is_unfit_training_stops_and_says_why(store):
    for key in KEYS:
        record_checks(store, key, hits_have_lattices=False)
    with pytest.raises(LabelError, match=r"lyso-r0002: hits_have_lattices.*peaknet diagnose"):
        training_set(store, KEYS)
