"""The reactor, as a type."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorMulticast,
    IReactorProcess,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
    IReactorUNIXDatagram,
)


class IReactor(
    IReactorCore, IReactorTime, IReactorProcess, IReactorTCP, IReactorUDP, IReactorMulticast,
    IReactorUNIX, IReactorUNIXDatagram, IReactorFDSet, IReactorSocket, IReactorThreads,
):
    """A reactor of this system. Who needs a clock alone takes an IReactorTime."""


def the_reactor() -> IReactor:
    """Return the one of this process, for the functions that everything starts from."""
    from twisted.internet import reactor

    return cast("IReactor", reactor)
