"""The project examples/reference-models, which lists every model that edgekit ships."""

import json
import shutil
from collections import Counter

import pytest
from _helpers.support import REPOSITORY, call

from edgekit.core.environment.project import open_project

pytestmark = pytest.mark.slow


def test_its_plan_contains_every_model_framework_and_variant(tmp_path):
    root = shutil.copytree(REPOSITORY / "examples/reference-models", tmp_path / "project")
    answer = call("run", "--root", root, "--dry-run", "--json")
    assert answer.code == 0, answer.err
    steps = json.loads(answer.out)["steps"]
    trained = {step["step"] for step in steps if step["kind"] == "train"}
    models = open_project(tmp_path).models()
    assert trained == {f"train {model}/{kind}" for model in models for kind in ("keras", "torch")}
    counts = Counter(step["kind"] for step in steps)
    assert counts == {"train": 20, "report": 1, **dict.fromkeys(("export", "validate", "bench", "check"), 320)}
