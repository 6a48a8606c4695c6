"""Shared code of the TFLite target."""
