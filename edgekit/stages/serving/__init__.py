"""Serving artifacts over HTTP."""
