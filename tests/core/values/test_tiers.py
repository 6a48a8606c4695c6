"""The table of tiers."""

import pytest

from edgekit.core.values.tiers import TIER_NAMES, TIERS, find_tier, is_repeatable, tier_of_rule


def test_the_tiers_are_ordered_from_rough_to_exact():
    assert TIER_NAMES == ("analytic", "host", "emulated", "device")


@pytest.mark.parametrize("tier", TIERS, ids=TIER_NAMES)
def test_every_tier_has_every_property(tier):
    assert tier.title and not tier.title.endswith(".")
    assert tier.worth.endswith(".")
    assert 0 <= tier.noise < 1
    assert tier.unit == "ms"
    assert find_tier(tier.name) is tier
    assert not (tier.is_bound and tier.measured)


@pytest.mark.parametrize("field", ["name", "title", "worth"])
def test_no_two_tiers_share_a_name_or_a_text(field):
    values = [getattr(tier, field) for tier in TIERS]
    assert len(set(values)) == len(values)


def test_the_properties_of_tiers_are_those_that_gates_and_reports_rely_on():
    def having(condition):
        return {tier.name for tier in TIERS if condition(tier)}

    assert having(lambda tier: not tier.repeatable) == {"host", "device"}
    assert having(lambda tier: tier.measured) == {"host", "device"}
    assert having(lambda tier: tier.is_bound) == {"analytic"}
    assert {tier.name: tier.noise for tier in TIERS} == {
        "analytic": 0.0,
        "host": 0.1,
        "emulated": 0.001,
        "device": 0.1,
    }


@pytest.mark.parametrize(
    ("rule", "tier", "repeatable"),
    [
        ("latency_ms.analytic", "analytic", True),
        ("latency_ms.host", "host", False),
        ("latency_ms.emulated", "emulated", True),
        ("latency_ms.device", "device", False),
        ("instructions", "emulated", True),
        ("peak_memory_bytes", "host", False),
        ("size_bytes", None, True),
        ("metric", None, True),
        ("drift", None, True),
        ("host", None, True),
        ("latency_ms.cloud", None, True),
    ],
)
def test_a_rule_belongs_to_the_tier_that_produces_its_figures(rule, tier, repeatable):
    belongs_to = tier_of_rule(rule)
    assert (belongs_to.name if belongs_to else None) == tier
    assert is_repeatable(rule) == repeatable
