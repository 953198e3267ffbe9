"""What commands about nodes share: whose they are, which one is meant, when they are booted."""

from __future__ import annotations

import json
import sys

from walt.client.errors import Failure
from walt.client.terminal import confirm

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.session import Session

WAITING = "Node bootup notification pending"
UNREACHABLE = 255  # what ssh answers when there was no shell at all


def may_disturb(session: Session, node_set: str, others_pass: bool = False) -> bool:
    """Check ownership (mode owned-or-free): others' nodes need a confirmation.

    `others_pass`: switches and so on are accepted beside nodes.
    """
    answer = session.call("cs.nodes.ownership", nodes=node_set)
    not_nodes = _names(answer, b"not_nodes")
    if not_nodes and not others_pass:
        raise Failure(f"not a node: {', '.join(not_nodes)}; this command applies to nodes")
    return confirmed(_owners(answer))


def _names(answer: dict[bytes, bytes], key: bytes) -> list[str]:
    names: list[str] = json.loads(answer[key])
    return names


def _owners(answer: dict[bytes, bytes]) -> dict[str, str]:
    """Return who owns each node of others."""
    owners: dict[str, str] = json.loads(answer[b"owners"])
    return owners


def ownership(session: Session, names: str) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the names of owned nodes, free ones, and the owners of those of others."""
    answer = session.call("cs.nodes.ownership", nodes=names)
    return _names(answer, b"owned"), _names(answer, b"free"), _owners(answer)


def confirmed(owners: dict[str, str]) -> bool:
    """Say whose nodes these are, and ask whether to go on; True at once when there are none."""
    from walt.common.sentences import subject, verb

    for owner in sorted(set(owners.values())):
        names = [name for name, one in owners.items() if one == owner]
        print(
            f"Warning: {subject(names)} {verb(names, 'belongs', 'belong')} to {owner}.",
            file=sys.stderr,
        )
    return not owners or confirm()


def single(session: Session, node_set: str) -> str:
    """Return the name of the one node of a set. Raises Failure for none or several."""
    names: list[str] = session.json("cs.nodes.expand", "names", nodes=node_set)
    if len(names) != 1:
        raise Failure(f"exactly one node is expected here, {node_set!r} has {len(names)}")
    return names[0]


class TooLate(Failure):
    """Nodes did not boot within the time given."""


def wait_booted(session: Session, node_set: str, timeout: float = -1) -> None:
    """Return when nodes are booted; raise TooLate after `timeout` seconds, if above 0."""
    with limited(timeout, "Timeout: some nodes are not booted yet."):
        session.call("cs.nodes.wait", nodes=node_set)


class limited:
    """A context that raises TooLate with a text after some seconds; never if not above 0."""

    def __init__(self, timeout: float, text: str) -> None:
        self._timeout = max(0.0, timeout)
        self._text = text

    def __enter__(self) -> None:
        if self._timeout:
            import signal

            signal.signal(signal.SIGALRM, self._too_late)
            signal.setitimer(signal.ITIMER_REAL, self._timeout)

    def __exit__(self, *exc: Any) -> None:
        if self._timeout:
            import signal

            signal.setitimer(signal.ITIMER_REAL, 0)

    def _too_late(self, number: int, frame: object) -> None:
        raise TooLate(self._text)
