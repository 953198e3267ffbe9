"""Change server.conf as a person does: what is not changed stays, comments included."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from walt.common.errors import ConfigurationError, Invalid

# A new file: sections in the order of the specification (spec server §8.3).
_NEW = """\
# WalT server configuration. Each key is told in the administrator manual; after a change:
#     walt-server-setup --check && systemctl restart walt-server

# Networks of this server. `walt-net` holds the nodes; without `raw-device`, the interface that
# leads to them, the platform has virtual nodes only.
network:
  walt-net:
    ip: 192.168.{net}.1/24
"""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def new_text(net: int) -> str:
    """Return a first server.conf, of a platform in 192.168.`net`.0/24 with virtual nodes only."""
    return _NEW.format(net=net)


def parse_change(text: str) -> tuple[tuple[str, ...], Any]:
    """Return the keys and the value of a change, KEY.KEY…=VALUE; the value is YAML.

    No value (`KEY=`) removes the key. Raises Invalid.
    """
    path, equals, value = text.partition("=")
    keys = tuple(path.split("."))
    if not equals or not all(_WORD.fullmatch(key) for key in keys):
        raise Invalid(
            f"{text!r} is no change of server.conf: expected KEY=VALUE as in"
            " network.walt-net.raw-device=eth1 (no value: the key is removed)"
        )
    try:
        found = YAML(typ="safe", pure=True).load(value)
    except (YAMLError, ValueError, TypeError) as error:
        raise Invalid(f"{path}: not a value: {' '.join(str(error).split())}") from None
    return keys, found


def values(text: str) -> dict[str, Any]:
    """Return what a server.conf says, as far as it is one. Raises ConfigurationError."""
    try:
        found = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, TypeError) as error:
        raise ConfigurationError(f"not valid YAML: {' '.join(str(error).split())}") from None
    return found if isinstance(found, dict) else {}


def changed(text: str, changes: Sequence[tuple[Sequence[str], Any]]) -> str:
    """Return a server.conf with some values set, or removed where they are None.

    Whether it makes sense is for `load.parse`. Raises ConfigurationError for what is no YAML.
    """
    yaml = YAML(pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096  # lines of others are not folded
    try:
        data = yaml.load(text)
    except (YAMLError, ValueError, TypeError) as error:
        raise ConfigurationError(f"not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = CommentedMap()
    before = io.StringIO()
    yaml.dump(data, before)
    for keys, value in changes:
        _change(data, keys, value)
    after = io.StringIO()
    yaml.dump(data, after)
    return text if after.getvalue() == before.getvalue() else after.getvalue()


def _change(data: Any, keys: Sequence[str], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        if not isinstance(data, dict):
            break
        if not isinstance(data.get(key), Mapping):
            if value is None:
                return
            data[key] = CommentedMap()
        data = data[key]
    if not isinstance(data, dict):
        raise ConfigurationError(f"{'.'.join(keys)}: there is no section for it in this file")
    if value is None:
        data.pop(last, None)
    else:
        data[last] = value
