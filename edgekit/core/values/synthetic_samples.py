"""The word for samples that are made from a network instead of data, and what a reader has to know of them."""

from __future__ import annotations

# The value of the option `calibration` that asks for them.
SYNTHETIC = "synthetic"
# What figures on such samples are worth; it stands wherever they are used.
SYNTHETIC_WORTH = "what is measured on them says nothing of real inputs"
