"""Labels that did not pass their blocking checks never teach."""

import json

import pytest

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.split import Exclusions
from peaknet_pipeline.stages.labels import BLOCKING, labels_path, without_unfit
from peaknet_pipeline.stages.provenance import recipe_path
from peaknet_pipeline.stages.store import Store

KEYS = ("lyso-r0001", "lyso-r0002")


def record_checks(store, key, **passed):
    path = recipe_path(labels_path(store, key))
    path.parent.mkdir(parents=True, exist_ok=True)
    checks = [{"name": n, "passed": p, "description": f"{n} said so"} for n, p in passed.items()]
    path.write_text(json.dumps({"checks": checks}))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.mark.parametrize("name", BLOCKING)
def test_a_run_that_failed_a_blocking_check_is_excluded_with_the_checks_words(store, name):
    record_checks(store, KEYS[0], **{name: False, "labels_are_true": True})
    record_checks(store, KEYS[1], **dict.fromkeys(BLOCKING, True), labels_are_true=False)
    left_out = without_unfit(store, KEYS, Exclusions({}, {KEYS[1]: [(3, 3, "ice")]}))
    assert left_out.runs == {KEYS[0]: f"{name} failed: {name} said so"}
    assert left_out.frames == {KEYS[1]: [(3, 3, "ice")]}


def test_when_every_run_is_unfit_training_stops_and_says_why(store):
    for key in KEYS:
        record_checks(store, key, hits_have_lattices=False)
    with pytest.raises(LabelError, match=r"lyso-r0002: hits_have_lattices failed.*peaknet diagnose"):
        without_unfit(store, KEYS, Exclusions({}, {}))


def test_a_users_own_reason_stays(store):
    record_checks(store, KEYS[0], hits_have_lattices=False)
    record_checks(store, KEYS[1], hits_have_lattices=True)
    assert (
        without_unfit(store, KEYS, Exclusions({KEYS[0]: "wrong crystal"}, {})).runs[KEYS[0]]
        == "wrong crystal"
    )
