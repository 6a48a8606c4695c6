"""Boards over ssh: their connection, what runs on them, and what they are."""
