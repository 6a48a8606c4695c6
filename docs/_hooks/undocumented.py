"""The error that fails the build of the site."""

from __future__ import annotations


class Undocumented(Exception):
    """Something public has no description, or a description is of something that no longer exists."""
