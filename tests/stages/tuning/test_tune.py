"""Tests of precision search on a classifier that int8 breaks, with real conversions and runtimes."""

import json
import shutil
from dataclasses import replace

import pytest

from edgekit.config.device_profile import load_profile
from edgekit.core.environment.project import open_project
from edgekit.core.events import NoteEvent, ignore
from edgekit.core.values.quantization_recipe import Recipe
from edgekit.stages.benchmark.bench import BenchOptions
from edgekit.stages.context import Context
from edgekit.stages.conversion import routes
from edgekit.stages.conversion.export_plans import ExportSettings
from edgekit.stages.tuning.tune import TuneOptions, tune

pytestmark = pytest.mark.exhaustive
QUICK = BenchOptions(min_duration_s=0.02, min_runs=3, warm_up_max_s=0.05)
BY_SIZE = TuneOptions(preference="size", bench=QUICK)


def copy_source(broken, folder, pool, listener):
    """Return a project that contains only the source model."""
    source = "build/broken/keras/source"
    shutil.copytree(broken / source, folder / source)
    return Context(open_project(folder), pool, listener)


@pytest.fixture
def here(broken, pool, tmp_path, events):
    context = copy_source(broken, tmp_path, pool, events.append)
    yield context
    context.close()


@pytest.fixture(scope="module")
def tuned(broken, pool, tmp_path_factory):
    """One complete search for the smallest file: the project's context, the result and the artifact."""
    context = copy_source(broken, tmp_path_factory.mktemp("tuned"), pool, ignore)
    yield context, *search(context, max_float_share=0.25)
    context.close()


def search(context, target="tflite", **changes):
    options = replace(BY_SIZE, **changes)
    return tune(context, "broken", "keras", routes.load_target(target), ExportSettings(), options)


def built(context):
    return sorted(path.name for path in (context.project.build / "broken/keras").iterdir())


def by_name(tuning):
    return {str(candidate.recipe): candidate for candidate in tuning.candidates}


def test_the_accuracy_lost_by_int8_is_recovered_with_few_weights_in_float(tuned):
    """At least 95 % of the lost accuracy, with less than a quarter of the weights in float."""
    _, tuning, _ = tuned
    whole = by_name(tuning)["int8"]
    assert whole.drop > 0.4  # a plain int8 export is not usable
    mixed = [entry for entry in tuning.candidates if entry.recipe.float_layers and entry.meets(tuning.constraints)]
    assert mixed
    for candidate in mixed:
        assert whole.drop - candidate.drop >= 0.95 * whole.drop
        assert 0 < candidate.float_share < 0.25
        assert candidate.size_bytes < by_name(tuning)["float16"].size_bytes
    assert {"0:CONV_2D", "1:CONV_2D"} == set(tuning.sensitivities[0].group.names)
    assert tuning.sensitivities[0].gain_db > 30
    assert tuning.sensitivities[0].metric_gain > 0.4


def test_the_winner_is_the_smallest_that_meets_the_limits_and_is_written_with_its_recipe(tuned):
    context, tuning, artifact = tuned
    winner = tuning.winner
    accepted = [candidate for candidate in tuning.candidates if candidate.meets(tuning.constraints)]
    # int8 weights and int16 activations are accurate enough here, in some layers as in all of them.
    assert any(candidate.recipe.int16_layers for candidate in accepted)
    assert winner.recipe.precision in ("int8", "int16x8")
    assert winner == min(accepted, key=lambda candidate: candidate.size_bytes)
    assert built(context) == ["source", f"tflite-{winner.recipe.precision}-tuned"]
    assert artifact.manifest.sha256 == winner.sha256
    assert artifact.manifest.options["recipe"] == json.loads(json.dumps(winner.recipe.to_dict()))
    assert json.loads((artifact.folder / "recipe.json").read_text()) == artifact.manifest.options["recipe"]
    assert json.loads((artifact.folder / "validation.json").read_text())["passed"]
    assert winner in tuning.front


def test_onnx_nodes_are_kept_in_float_as_well(here):
    tuning, artifact = search(here, "onnx")
    whole = by_name(tuning)["int8"]
    assert whole.drop > 0.4
    assert tuning.winner.recipe.float_layers
    assert whole.drop - tuning.winner.drop >= 0.95 * whole.drop
    assert tuning.winner.float_share < 0.25
    assert artifact.folder.name == "onnx-int8-tuned"
    calibrations = {candidate.recipe.calibration for candidate in tuning.candidates}
    assert calibrations >= {"moving-average", "percentile"}


def test_only_candidates_that_meet_the_other_limits_are_measured(here):
    profile = load_profile(here.project.device_file("raspberry-pi-4b"))
    tuning, artifact = search(
        here, preference="latency", device="raspberry-pi-4b", profile=profile, max_size_bytes=40_000
    )
    measured = [candidate for candidate in tuning.candidates if candidate.latency_ms is not None]
    assert measured
    assert all(candidate.drop <= 0.01 and candidate.size_bytes <= 40_000 for candidate in measured)
    assert all(candidate in measured for candidate in tuning.candidates if candidate.meets(tuning.constraints))
    assert tuning.winner in measured
    assert tuning.tier == "host"
    assert (artifact.folder / "bench-raspberry-pi-4b.json").is_file()


def test_when_nothing_meets_the_limits_the_nearest_is_returned_and_written_only_on_request(here):
    limits = {"max_size_bytes": 10_000, "time_limit_s": 1e-6}
    tuning, artifact = search(here, **limits)
    assert (tuning.winner, artifact) == (None, None)
    assert built(here) == ["source"]
    (violation,) = tuning.nearest.broken(tuning.constraints)
    assert violation.startswith("size 8")
    assert violation.endswith(" too large")
    tuning, artifact = search(here, **limits, keep_best=True)
    assert tuning.winner is None
    assert artifact.manifest.sha256 == tuning.nearest.sha256
    assert built(here) == ["source", "tflite-float32-tuned"]


def test_a_search_that_is_out_of_time_chooses_from_what_it_has(here, events):
    tuning, artifact = search(here, time_limit_s=1e-6)
    assert tuning.stopped
    assert [str(candidate.recipe) for candidate in tuning.candidates] == ["float32"]
    assert artifact.folder.name == "tflite-float32-tuned"
    assert any(isinstance(event, NoteEvent) and "time limit" in event.detail for event in events)


def test_without_labels_the_drop_is_the_error_of_the_outputs(here):
    (here.project.source_folder("broken", "keras") / "test.npz").unlink()
    tuning, _ = search(here, "onnx", max_drop=0.01)
    assert "there is no test set with labels" in tuning.judged_by
    assert tuning.constraints.drop_name == "output error"
    for candidate in tuning.candidates:
        assert candidate.drop == pytest.approx(10 ** (-candidate.sqnr_db / 20))
    assert by_name(tuning)["int8"].drop > 0.8
    assert tuning.winner.recipe.float_layers
    assert tuning.winner.sqnr_db >= 40
    assert all(sensitivity.metric_gain is None for sensitivity in tuning.sensitivities)


def test_a_target_without_selective_quantization_compares_whole_precisions_with_a_note(here, events):
    tuning, artifact = search(here, "torchscript")
    assert {candidate.recipe.precision for candidate in tuning.candidates} == {"float32", "int8"}
    assert not any(candidate.recipe.selective for candidate in tuning.candidates)
    assert any("torchscript keeps no single layers in float" in note for note in tuning.notes)
    assert tuning.winner.recipe == Recipe("torchscript", "float32")
    assert artifact.folder.name == "torchscript-float32-tuned"


def test_a_network_that_is_not_trained_yet_is_trained_and_needs_no_recipe_if_it_quantizes_well(pool, tmp_path):
    context = Context(open_project(tmp_path), pool, ignore)
    tuning, artifact = tune(context, "linear", "keras", routes.load_target("onnx"), ExportSettings(), BY_SIZE)
    context.close()
    assert tuning.constraints.drop_name == "mae drop"
    assert tuning.constraints.max_drop == pytest.approx(0.01 * artifact.manifest.source["metric_value"])
    assert tuning.winner is not None
    assert not tuning.sensitivities
    assert artifact.folder.is_relative_to(tmp_path)
