"""Nodes: whose they are, which one is meant, when they are booted, and what becomes of them."""

from __future__ import annotations

import json
from collections import namedtuple

from walt.client.errors import Failure
from walt.client.operations.rebooting import reboot

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.calls import Calls


# Columns that tables of nodes have, among others, and how an answer with them looks.
SHOWN = {
    "name", "ip", "type", "model", "image_name", "owner", "clonable_image_link", "netsetup",
    "booted", "powersave", "trouble", "reserved_by", "reserved_until",
}
LISTED = {"columns": [str], "own": list, "free": list, "others": list, "total": int}


class Ownership(namedtuple("Ownership", ("names", "owned", "free", "owners", "reservations"))):
    """Names of all nodes, owned ones, free ones, owners of the others, reservations of others."""

    __slots__ = ()


def ownership(
    calls: Calls, node_set: str, image: str | None = None, others_pass: bool = False
) -> Ownership:
    """Return whose the nodes of a set are. An `image` that they are to boot is checked first.

    Raises Failure for what is no node, unless `others_pass`.
    """
    values: dict[str, Any] = {} if image is None else {"image": image}
    answer = calls.call("cs.nodes.ownership", nodes=node_set, **values)
    not_nodes = json.loads(answer[b"not_nodes"])
    if not_nodes and not others_pass:
        raise Failure(f"not a node: {', '.join(not_nodes)}; this command applies to nodes")
    return Ownership(*(json.loads(answer[name.encode()]) for name in Ownership._fields))


def warnings(whose: Ownership) -> list[str]:
    """Return sentences about whom work on these nodes may disturb."""
    from walt.client.formats import moment
    from walt.common.sentences import subject, verb

    told = []
    for owner in sorted(set(whose.owners.values())):
        names = [name for name, its_owner in whose.owners.items() if its_owner == owner]
        told.append(f"{subject(names)} {verb(names, 'belongs', 'belong')} to {owner}.")
    for reservation in whose.reservations:
        told.append(
            f"{subject([reservation['node']])} is reserved by {reservation['user']}"
            f" until {moment(reservation['until'])}."
        )
    return told


def listed(calls: Calls, others: bool) -> dict[str, Any]:
    """Return what tables show of the caller's nodes, or with `others` of all.

    Rows are lists, in the order of `columns`. Raises Failure for an answer that makes no sense.
    """
    from walt.client.answers import looks_wrong, senseless

    tables: dict[str, Any] = calls.json("cs.nodes.list", "tables", all=others)
    wrong = looks_wrong(tables, LISTED, "tables")
    if wrong:
        raise senseless(wrong)
    names = tables["columns"]
    if not {*names} >= SHOWN or not all(
        type(row) is list and len(row) == len(names)
        for kind in ("own", "free", "others") for row in tables[kind]
    ):
        raise senseless("rows of nodes are not as its columns say")
    return tables


def expand(calls: Calls, node_set: str) -> list[str]:
    """Return the names in a set: its keywords change meaning with images."""
    names: list[str] = calls.json("cs.nodes.expand", "names", nodes=node_set)
    return names


def single(calls: Calls, node_set: str) -> str:
    """Return the name of the one node of a set. Raises Failure for none or several."""
    names = expand(calls, node_set)
    if len(names) != 1:
        raise Failure(f"exactly one node is expected here, {node_set!r} has {len(names)}")
    return names[0]


def boot(calls: Calls, names: str, image: str) -> bool:
    """Have nodes boot an image; tell whether all restarted."""
    return reboot(calls, names, False, "image change", image)


def acquire(calls: Calls, names: str, whose: Ownership) -> bool:
    """Own nodes: they boot copies of their default images. Tell whether all restarted.

    Those that have got another owner than `whose` tells are refused.
    """
    owners = sorted(set(whose.owners.values()))
    calls.call("cs.nodes.acquire", nodes=names, owners=owners)
    return reboot(calls, names, False, "acquire")


def release(calls: Calls, names: str) -> bool:
    """Give nodes back: they boot their default images. Tell whether all restarted."""
    return reboot(calls, names, False, "release", "default")


def rename(calls: Calls, name: str, new_name: str) -> None:
    """Give a device another name."""
    calls.call("cs.devices.rename", name=name, new_name=new_name)


class TooLate(Failure):
    """Nodes did not boot within the time given."""


def wait_booted(calls: Calls, node_set: str, timeout: float = -1) -> None:
    """Return when nodes are booted; raise TooLate after `timeout` seconds, if above 0."""
    with limited(timeout, "Timeout: some nodes are not booted yet."):
        calls.call("cs.nodes.wait", nodes=node_set)


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
