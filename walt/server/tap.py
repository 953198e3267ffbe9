"""The twistd plugin `walt-server`: options and service, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from walt.common.errors import ConfigurationError
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.runtime.memory import building
from walt.server.runtime.reactors import IReactor, the_reactor

if TYPE_CHECKING:
    from twisted.internet.epollreactor import EPollReactor

_log = Logger()


class Options(usage.Options):
    """Options of `twistd walt-server`."""

    optParameters = [["config", "c", str(DEFAULT_FILE), "configuration file"]]


def makeService(options: Any) -> IService:
    """Return the server as one service; a wrong configuration ends twistd with status 1."""
    try:
        config = load(Path(options["config"]))
    except ConfigurationError as error:
        raise SystemExit(f"walt-server: {error}") from None
    building()
    reactor = the_reactor()
    _record(reactor, config.paths.log / "trackexec")
    from walt.server.assembly.server import WaltServer

    return WaltServer(reactor, config)


def _record(reactor: IReactor, directory: Path) -> None:
    """Record what is executed where an administrator made a directory for it (`walt help`)."""
    if not directory.is_dir():
        return
    from walt.server.trackexec.start import record_server, watch

    def tell(text: str) -> None:
        reactor.callFromThread(_log.error, "{text}", text=text)

    try:
        watch(cast("EPollReactor", reactor), record_server(directory, tell))
    except OSError as error:
        _log.error(
            "the execution is not recorded: {directory}: {reason}",
            directory=directory, reason=error.strerror,
        )
