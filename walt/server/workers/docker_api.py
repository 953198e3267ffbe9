"""Reading a docker daemon by its HTTP API (Docker Engine API 1.24 and later): in workers."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote, urlencode

from walt.common.errors import NotFound, Unavailable
from walt.common.texts import load_json
from walt.server.workers.main import Progress

PATIENCE = 10.0  # seconds for one answer
MAX_BODY = 64 << 20
MEMORY = 1 << 30  # bytes of address space for a job


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket of the daemon."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _get(path: str, url: str) -> Any:
    """Return the JSON at a URL of the daemon; NotFound or Unavailable."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        body = answer.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            raise ValueError("the answer is too long")
        if answer.status == 404:
            raise NotFound("it has no such image")
        if answer.status != 200:
            raise Unavailable(f"it answers HTTP {answer.status}")
        return load_json(body)
    except OSError as error:
        raise Unavailable(f"no answer at {path} ({error.strerror or error})") from None
    except (http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"no proper answer at {path} ({error})") from None
    finally:
        connection.close()


def names(arguments: dict[str, Any], progress: Progress) -> dict[str, dict[str, Any]]:
    """Return what the images with the label `label` are, by each of their names.

    Names have the form `user/name:tag`; values have `labels` and `created` (epoch
    seconds). `socket` is the path of the daemon's socket.
    """
    query = urlencode({"filters": json.dumps({"label": [arguments["label"]]})})
    found: dict[str, dict[str, Any]] = {}
    for item in _get(arguments["socket"], f"/images/json?{query}"):
        for name in item.get("RepoTags") or ():
            if name.count("/") == 1 and "<none>" not in name:
                found[name] = {
                    "labels": item.get("Labels") or {}, "created": item.get("Created") or 0,
                }
    return found


def image(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Return `labels` and `created` (RFC 3339) of the image `fullname`; NotFound."""
    item = _get(arguments["socket"], f"/images/{quote(arguments['fullname'])}/json")
    return {
        "labels": (item.get("Config") or {}).get("Labels") or {},
        "created": item.get("Created") or "",
    }
