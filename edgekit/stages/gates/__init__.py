"""Judging results: budgets, baselines, regressions, and the report that gathers them."""
