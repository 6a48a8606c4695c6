"""Model cards as plain text and as Markdown, after Mitchell et al., "Model Cards for Model Reporting" (2019)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgekit.config.card import Card
from edgekit.config.model import ModelSpec
from edgekit.core import escape
from edgekit.core.numerics.metrics import format_metric
from edgekit.core.records.source import SourceModel
from edgekit.core.units import format_count, format_seconds
from edgekit.core.values.budgets import format_rule
from edgekit.core.values.precisions import precision_names
from edgekit.reports._shared.markdown import markdown_table

# Both columns of a property table are text.
_LEFT = 2


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _input(spec: ModelSpec) -> list[tuple[str, str]]:
    tensor = spec.input
    layout = f" {tensor.layout}" if tensor.layout else ""
    rows = [("input", f"{tensor.name}: {_shape(tensor.shape)}{layout} {tensor.dtype}")]
    if tensor.range:
        rows.append(("input range", f"{tensor.range[0]:g} to {tensor.range[1]:g}"))
    if tensor.normalisation:
        rows.append(("normalisation", tensor.normalisation))
    return rows


def _data(card: Card) -> list[tuple[str, str]]:
    spec = card.spec.data
    rows = [("data", f"{spec.default}: {spec.description}" if spec.description else spec.default)]
    rows += [
        ("data licence", spec.licence),
        ("held out", f"{spec.test} test, {spec.golden} golden, {spec.calibration} calibration samples"),
    ]
    hashes = dict.fromkeys((str(source.data.get("name")), str(source.data.get("sha256"))) for source in card.trained)
    return rows + [("data sha256", f"{sha256} ({name})") for name, sha256 in hashes]


def _identity(card: Card) -> list[tuple[str, str]]:
    spec = card.spec
    rows = [("task", f"{spec.task}, evaluated by {spec.metric}"), *_input(spec)]
    rows.append(("output", f"{spec.output.name}: {_shape(spec.output.shape)}"))
    if spec.output.classes:
        rows.append(("classes", f"{len(spec.output.classes)}: {', '.join(spec.output.classes)}"))
    return [*rows, *_data(card)]


def _hyperparameters(spec: ModelSpec) -> list[tuple[str, str]]:
    training = spec.training
    rate = f"{training.learning_rate:g}, {training.schedule_name}"
    if training.schedule_name == "cosine":
        rate += f" to {training.final_learning_rate or 0:g}"
    rows = [
        ("epochs", str(training.epochs)),
        ("batch size", str(training.batch_size)),
        ("optimizer", f"{training.optimizer}, loss {training.loss}"),
        ("learning rate", rate),
        ("warm-up", f"{training.warmup_epochs:g} epochs" if training.warmup_epochs else ""),
        ("weight decay", f"{training.weight_decay:g}" if training.weight_decay else ""),
        ("validation", f"{training.validation_share:.0%} of the training set" if training.validation_share else ""),
        ("early stopping", f"after {training.early_stopping} epochs" if training.early_stopping else ""),
        ("seed", str(training.seed)),
    ]
    return [(name, value) for name, value in rows if value]


def _metric(source: SourceModel) -> str:
    value = format_metric(source.metric, source.metric_value)
    return f"{source.metric} {value} on {source.data.get('test')} unseen samples"


def _result(card: Card, source: SourceModel) -> list[tuple[str, str]]:
    training = source.training
    macs = card.macs.get(source.kind)
    seconds, epochs = training.get("seconds"), training.get("epochs_done", training.get("epochs"))
    stopped = f", stopped by {training['stopped']}" if training.get("stopped") else ""
    rows = [
        ("result", _metric(source)),
        ("parameters", f"{source.parameters:,}"),
        ("multiply-accumulates", f"{macs:,} ({format_count(macs)})" if macs is not None else "unknown until exported"),
        ("epochs", f"{epochs} of {training.get('epochs')}{stopped}"),
        ("training time", format_seconds(seconds) if isinstance(seconds, (int, float)) else "not recorded"),
        ("quantization-aware", _qat(training.get("qat"))),
        ("batch size", str(training.get("batch_size"))),
        ("learning rate", f"{training.get('learning_rate', 0):g}"),
        ("seed", str(training.get("seed"))),
        ("trained on", f"{source.data.get('train')} samples of {source.data.get('name')}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in source.versions.items())),
        ("weights sha256", str(training.get("weights_sha256", source.sha256))),
    ]
    return [(name, value) for name, value in rows if value]


def _qat(record: Any) -> str:
    return f"{record['tool']}, epochs: {record['epochs']}" if isinstance(record, dict) else ""


def _tolerances(spec: ModelSpec) -> list[tuple[str, str]]:
    overridden = {str(precision) for precision in spec.tolerances}
    return [
        (
            precision,
            ", ".join(f"{name} {limit:.8g}" for name, limit in spec.tolerances_for(precision).limits().items())
            + (" (set by the model)" if precision in overridden else ""),
        )
        for precision in precision_names()
    ]


def _budgets(spec: ModelSpec) -> list[tuple[str, str]]:
    return [
        (budget.variant, f"{budget.rule} <= {format_rule(budget.rule, budget.limit)}")
        for budget in spec.budget_list("")
    ]


def console(card: Card) -> str:
    """Return the card as plain text: one property per line, grouped by subject."""
    parts: list[tuple[str, list[tuple[str, str]]]] = [
        ("", [("title", card.spec.title), ("folder", str(card.folder)), *_identity(card), *_usage(card.spec)]),
        ("hyperparameters", _hyperparameters(card.spec)),
        ("tolerances", _tolerances(card.spec)),
        ("budgets", _budgets(card.spec)),
        *((f"trained, {source.kind}", _result(card, source)) for source in card.trained),
    ]
    parts += [(f"trained, {kind}", [("result", _not_trained(card, kind))]) for kind in card.untrained]
    texts = []
    for title, rows in parts:
        heading, indent = (escape.line(title), "  ") if title else ("", "")
        texts.append(heading + "".join(escape.line(f"{indent}{key:<22}{value}") for key, value in rows))
    return "".join(texts)


def _usage(spec: ModelSpec) -> list[tuple[str, str]]:
    rows = [("intended use", spec.card.intended_use)] if spec.card.intended_use else []
    rows += [("limitation", text) for text in spec.card.limitations]
    return rows + [("reference", text) for text in spec.card.references]


def markdown(card: Card) -> str:
    """Return the card as a Markdown document."""
    spec = card.spec
    text = f"# {escape.markdown(card.name)}\n\n{escape.markdown_prose(spec.title)}.\n\n"
    if spec.card.intended_use:
        text += f"## Intended use\n\n{escape.markdown_prose(spec.card.intended_use)}\n\n"
    if spec.card.limitations:
        text += f"## Limitations\n\n{_list(spec.card.limitations)}\n"
    text += f"## Model and data\n\n{_property_table(_identity(card))}\n## Results\n\n{_results(card)}\n"
    text += f"## Hyperparameters of model.toml\n\n{_property_table(_hyperparameters(spec))}\n"
    text += "## Tolerances\n\nHow far the outputs of an artifact may differ from those of its source, by precision.\n\n"
    text += markdown_table(("precision", "limits"), _tolerances(spec), left=_LEFT)
    if spec.budgets:
        text += f"\n## Budgets\n\n{markdown_table(('variant', 'limit'), _budgets(spec), left=_LEFT)}"
    if spec.card.references:
        text += f"\n## References\n\n{_list(spec.card.references)}"
    return text


def _results(card: Card) -> str:
    """Return the training results, one column per framework."""
    missing = "".join(f"{escape.markdown(f'{kind}: {_not_trained(card, kind)}')}\n" for kind in card.untrained)
    if not card.trained:
        return missing
    columns = [dict(_result(card, source)) for source in card.trained]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, *(column.get(name, "no") for column in columns)) for name in names]
    results = markdown_table(("", *(source.kind for source in card.trained)), rows, left=len(columns) + 1)
    return f"{results}\n{missing}" if missing else results


def _not_trained(card: Card, kind: str) -> str:
    return f"not trained yet; run: edgekit train {card.name} --framework {kind}"


def _property_table(rows: list[tuple[str, str]]) -> str:
    return markdown_table(("", ""), rows, left=_LEFT)


def _list(items: Iterable[str]) -> str:
    return "".join(f"- {escape.markdown_prose(text)}\n" for text in items)
