"""Blocking work, run in short-lived children."""
