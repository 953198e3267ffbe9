"""Credentials that root stored with the usual tools (containers-auth.json(5))."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

FILES = (
    "/run/containers/0/auth.json", "/root/.config/containers/auth.json",
    "/root/.docker/config.json",
)
HELPER_PATIENCE = 10.0
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find(host: str) -> tuple[str, str] | None:
    """Return user name and password for a registry (`host[:port]`), None without any."""
    for file in FILES:
        try:
            content = json.loads(Path(file).read_text())
        except (OSError, ValueError):
            continue
        found = _in(content, host) if isinstance(content, dict) else None
        if found is not None:
            return found
    return None


def _in(content: dict[str, Any], host: str) -> tuple[str, str] | None:
    for key, entry in (content.get("auths") or {}).items():
        if key.split("://")[-1].split("/")[0] == host and isinstance(entry, dict):
            try:
                user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
                return user, password
            except (KeyError, ValueError):
                break
    helper = (content.get("credHelpers") or {}).get(host) or content.get("credsStore")
    return _ask(str(helper), host) if helper else None


def _ask(helper: str, host: str) -> tuple[str, str] | None:
    if not _HELPER.fullmatch(helper):
        return None
    try:
        answer = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=host.encode(), capture_output=True,
            timeout=HELPER_PATIENCE, check=True,
        )
        values = json.loads(answer.stdout)
        return str(values["Username"]), str(values["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
