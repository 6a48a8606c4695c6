"""Plug-ins for edgekit, as another package writes them."""
