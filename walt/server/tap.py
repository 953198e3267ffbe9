"""The twistd plugin `walt-server`: options and service, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from walt.common.errors import ConfigurationError
from walt.server.config.load import DEFAULT_FILE, load


class Options(usage.Options):
    """Options of `twistd walt-server`."""

    optParameters = [["config", "c", str(DEFAULT_FILE), "configuration file"]]


def makeService(options: Any) -> IService:
    """Return the server as one service; a wrong configuration ends twistd with status 1."""
    try:
        config = load(Path(options["config"]))
    except ConfigurationError as error:
        raise SystemExit(f"walt-server: {error}") from None
    from twisted.internet import reactor

    from walt.server.assembly.server import WaltServer

    return WaltServer(reactor, config)
