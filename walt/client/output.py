"""Output for programs."""

from __future__ import annotations


def print_json(value: object) -> None:
    """Print a value as JSON, sorted and indented."""
    import json

    print(json.dumps(value, indent=2, sort_keys=True))
