"""A short campaign with a fixed seed, and every input that once was a fault. `make fuzz` runs a long one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _helpers.fuzzing.campaign import CORPUS, Campaign, Outcome

pytestmark = pytest.mark.exhaustive

# Cases a format, times its weight; some two minutes.
ROUNDS = 15


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with Campaign(tmp_path_factory.mktemp("faults")) as running:
        yield running


def test_intact_files_are_read(campaign: Campaign) -> None:
    """Without this, a campaign would mutate files that are refused anyway."""
    results = {}
    for entry in campaign.formats.values():
        outcome = Outcome()
        for seed in entry.seeds:
            campaign.case(entry, seed, outcome)
        results[entry.name] = dict(outcome.cases[entry.name]) == {"read": len(entry.seeds)}
    assert [name for name, was_read in results.items() if not was_read] == []


def test_inputs_that_once_were_faults_are_none(campaign: Campaign) -> None:
    outcome = Outcome()
    for path in sorted(CORPUS.glob("*/*")):
        campaign.case(campaign.formats[path.parent.name], path.read_bytes(), outcome)
    assert outcome.faults == []


def test_mutated_files_are_read_or_refused(campaign: Campaign) -> None:
    outcome = campaign.run(seconds=None, cases=ROUNDS, seed=1)
    assert outcome.faults == []
    assert outcome.total > 3000


def test_the_canaries_and_limits_are_noticed(campaign: Campaign) -> None:
    """A campaign that cannot find a fault proves nothing."""
    from dataclasses import replace

    entry = campaign.formats["recipe"]
    outcome = Outcome()

    def touch(_path: object) -> None:
        campaign.canary.touch()

    def fail(_path: object) -> None:
        raise KeyError("x")

    def leak(_path: object) -> str:
        return (campaign.canary.parent / "secret").read_text()

    for read in (touch, fail, leak):
        campaign.case(replace(entry, read=read), b"{}", outcome)
    assert [fault.partition(": ")[2] for fault in outcome.faults] == [
        "a canary was touched: the file was executed, or wrote a file",
        "KeyError: 'x'",
        "the content of another file was read",
    ]
    assert not campaign.canary.exists()
