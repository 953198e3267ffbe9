"""Boards on serial lines."""
