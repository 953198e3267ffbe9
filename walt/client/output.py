"""Output for programs."""

from __future__ import annotations

import json


def pip_install(package: str) -> str:
    """Return the command that installs a package for the Python that runs walt."""
    import shlex
    import sys

    return f"{shlex.quote(sys.executable)} -m pip install {package}"


def print_json(value: object) -> None:
    """Print a value as JSON, sorted, one row a line (`grep` and `diff` like it)."""
    # json.dumps(indent=…) is 4 times slower: it leaves the encoder written in C.
    print(_indented(value, ""))


def _indented(value: object, margin: str) -> str:
    if isinstance(value, dict) and any(isinstance(one, (dict, list)) for one in value.values()):
        inside = margin + "  "
        items = [
            f"{inside}{json.dumps(key)}: {_indented(value[key], inside)}" for key in sorted(value)
        ]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        rows = [f"{margin}  {json.dumps(one, sort_keys=True)}" for one in value]
        return "[\n" + ",\n".join(rows) + f"\n{margin}]"
    return json.dumps(value, sort_keys=True)
