"""Credentials that root stored with the usual tools (containers-auth.json(5), docker login)."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from walt.common.texts import load_json
from walt.server.workers.main import Progress

FILES = ("/run/containers/0/auth.json", "/root/.config/containers/auth.json")
DOCKER = "/root/.docker"
HELPER_PATIENCE = 10.0
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What tools call the Docker Hub, the name that docker login writes first.
_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


def files() -> list[Path]:
    """Return the files that are read, in their order.

    REGISTRY_AUTH_FILE names the only one; DOCKER_CONFIG is docker's directory.
    """
    only = os.environ.get("REGISTRY_AUTH_FILE")
    if only:
        return [Path(only)]
    docker = os.environ.get("DOCKER_CONFIG") or DOCKER
    return [*map(Path, FILES), Path(docker) / "config.json"]


def stored(arguments: dict[str, Any], progress: Progress) -> list[str] | None:
    """Return the user name and password that root has for `host`, if any."""
    found = find(arguments["host"])
    return None if found is None else list(found)


def find(host: str) -> tuple[str, str] | None:
    """Return user name and password for a registry (`host[:port]`), None without any."""
    for file in files():
        try:
            content = load_json(file.read_text())
        except (OSError, ValueError, RecursionError):
            continue
        found = _in(content, host) if isinstance(content, dict) else None
        if found is not None:
            return found
    return None


def _in(content: dict[str, Any], host: str) -> tuple[str, str] | None:
    helpers = _mapping(content.get("credHelpers"))
    for name in _names(host):
        if name in helpers:
            return _ask(helpers[name], name)
    entries = _mapping(content.get("auths"))
    # An entry for the registry itself comes before those for a part of it.
    for depth in (0, 1):
        for key, entry in entries.items():
            found = _pair(entry) if _is_for(key, host, depth) else None
            if found is not None:
                return found
    for name in _names(host) if "credsStore" in content else ():
        found = _ask(content["credsStore"], name)
        if found is not None:
            return found
    return None


def _names(host: str) -> tuple[str, ...]:
    return _HUB if host in _HUB else (host,)


def _is_for(key: str, host: str, depth: int) -> bool:
    place = re.sub(r"/v[12]/?$", "", key.split("://")[-1]).rstrip("/")
    return place.split("/")[0] in _names(host) and ("/" in place) == bool(depth)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _pair(entry: Any) -> tuple[str, str] | None:
    try:
        user, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except (KeyError, ValueError, TypeError):
        return None
    return (user, password) if user and colon else None


def _ask(helper: Any, host: str) -> tuple[str, str] | None:
    """Ask a credential helper (docker-credential-helpers, command `get`)."""
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        return None
    try:
        answer = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=host.encode(), capture_output=True,
            timeout=HELPER_PATIENCE, check=True,
        )
        values = load_json(answer.stdout)
        return str(values["Username"]), str(values["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
