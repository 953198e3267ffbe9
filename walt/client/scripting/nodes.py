"""Nodes and sets of nodes (spec user-surface §2.2, §2.7)."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from typing import TypeVar

from walt.client.answers import NULL
from walt.client.errors import Failure, Refused
from walt.client.exceptions import (
    NodeAlreadyOwnedException,
    NodeHasLogsException,
    NodeNotOwnedException,
    NodeReservedException,
    NoSuchImageNameException,
    OpAppliesNodeOwnedException,
    ParameterNotAnImageException,
)
from walt.client.operations import nodes as operations
from walt.client.operations.rebooting import reboot
from walt.client.scripting.boots import boots_of
from walt.client.scripting.configuration import NodeConfiguration
from walt.client.scripting.images import Image, image_of
from walt.client.scripting.issuers import Issuers
from walt.client.scripting.link import LINK
from walt.client.scripting.logs import LogLines, get_logs
from walt.client.scripting.objects import FREE, SELF, Item
from walt.client.scripting.running import Program, Result, commands_of, run
from walt.client.scripting.sets import ItemSet

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from walt.client.operations.nodes import Ownership
    from walt.client.scripting.columns import Frame

T = TypeVar("T")
# What is read of the record of a node.
RECORD: dict[str, Any] = {
    "mac": str, "name": str, "ip": (str, NULL), "type": str, "in_walt_net": bool, "virtual": bool,
    "image": (str, NULL), "model": (str, NULL), "booted": bool, "netmask": str, "gateway": str,
    "netsetup": int,
}
RECORDS = [RECORD]
AT_ONCE = 16  # commands and copies that a set does at the same time
_objects: dict[str, Node] = {}  # by MAC: one object for each node


def node_of(record: dict[str, Any]) -> Node:
    """Return the object of a node, with what the server now says of it."""
    mac = record["mac"]
    node = _objects.get(mac)
    if node is None or node._gone:
        node = _objects[mac] = (VirtualNode if record["virtual"] else PhysicalNode)(record)
    node._record = record
    return node


def find(names: str) -> list[Node]:
    """Return the nodes of a set of names. Raises Refused."""
    return [node_of(record) for record in LINK.json("cs.nodes.get", "nodes", RECORDS, nodes=names)]


def restored(mac: str) -> Node:
    """Return the node with this MAC. Raises ReferenceError when there is none."""
    for node in find("all-nodes"):
        if node.mac == mac:
            return node
    raise ReferenceError(f"there is no node with the address {mac} any more")


class Operations(ABC):
    """What can be done with a node, and with all nodes of a set at once."""

    @abstractmethod
    def _names(self) -> str:
        """Return the names of the nodes, as a set is written. Raises ReferenceError, Failure."""

    def _ownership(self) -> Ownership:
        return operations.ownership(LINK, self._names())

    def _check_owner(self, force: bool, whose: Ownership | None = None) -> None:
        """Refuse nodes of others, unless `force`: who works with them is not asked."""
        if force:
            return
        whose = whose or self._ownership()
        if whose.owners:
            told = ", ".join(f"{name} ({owner}'s)" for name, owner in sorted(whose.owners.items()))
            raise NodeNotOwnedException(f"not yours: {told}; force=True goes on")
        if whose.reservations:
            told = " ".join(operations.warnings(whose))
            raise NodeReservedException(f"{told} force=True goes on")

    def boot(self, image: str | Image, force: bool = False) -> bool:
        """Boot the specified WalT image"""
        if not isinstance(image, (str, Image)):
            raise ParameterNotAnImageException(
                f"{image!r} is neither the name of an image, nor 'default', nor an image"
            )
        name = image if isinstance(image, str) else image._bootable()
        names = self._names()
        try:
            whose = operations.ownership(LINK, names, name)
        except Refused as refused:
            if refused.code not in ("NOT_FOUND", "INVALID"):
                raise
            raise NoSuchImageNameException(str(refused)) from None
        self._check_owner(force, whose)
        return operations.boot(LINK, names, name)

    def acquire(self, force: bool = False) -> bool:
        """Get ownership of it"""
        whose = self._ownership()
        if whose.owned:
            raise NodeAlreadyOwnedException(f"already yours: {', '.join(whose.owned)}")
        self._check_owner(force, whose)
        return operations.acquire(LINK, self._names(), whose)

    def release(self) -> bool:
        """Release ownership of it"""
        found = self._ownership()
        if found.free or found.owners:
            raise OpAppliesNodeOwnedException(
                f"not yours: {', '.join(sorted([*found.free, *found.owners]))}"
            )
        return operations.release(LINK, self._names())

    def reboot(self, force: bool = False, hard_only: bool = False) -> bool:
        """Reboot"""
        self._check_owner(force)
        return reboot(LINK, self._names(), hard_only, "reboot requested")

    def wait(self, timeout: float = -1) -> None:
        """Wait until it is booted"""
        LINK.call(
            "cs.nodes.wait", nodes=self._names(), time_limit=timeout if timeout >= 0 else None
        )

    def boots(self, last: int = 100) -> Frame:
        """Return how it booted, the last times"""
        return boots_of(self._names(), last)

    def commands(self) -> Frame:
        """Return what this program ran on it"""
        return commands_of(self._names().split(","))

    def get_logs(
        self, realtime: bool = False, history: str | None = None, timeout: float = -1,
        consoles: bool = False,
    ) -> LogLines:
        """Iterate over its log lines"""
        return get_logs(self._names(), realtime, history, timeout, consoles, Issuers(node_of))


class Node(Operations, Item):
    """A node. What may change on the server is asked for at each access."""

    _kind = "node"

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record

    @property
    def _title(self) -> str:  # type: ignore[override]
        return f"node {self._record['name']}"

    def _known(self, name: str) -> Any:
        self._check()
        return self._record[name]

    def _asked(self, name: str) -> Any:
        self._check()
        self._refresh()
        return self._record[name]

    def _refresh(self) -> None:
        """Read the record anew; the node may have another name since."""
        try:
            (record,) = LINK.json(
                "cs.nodes.get", "nodes", RECORDS, nodes=self._record["name"]
            )
            same = record["mac"] == self._record["mac"]
        except Refused:
            same = False
        if same:
            self._record = record
            return
        for node in find("all-nodes"):
            if node is self:
                return
        self._gone = True
        self._check()

    def _names(self) -> str:
        self._check()
        return str(self._record["name"])

    def __or__(self, other: object) -> NodeSet:
        if not isinstance(other, Node):
            return NotImplemented
        return NodeSet([self, other])

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (self._record["mac"],)

    def _comments(self) -> dict[str, str]:
        from walt.client.settings import username

        owner = self._record["image"].partition("/")[0]
        return {"owner": SELF if owner == username() else FREE if owner == "waltplatform" else ""}

    @property
    def name(self) -> str:
        """The name of the node."""
        return str(self._known("name"))

    @property
    def mac(self) -> str:
        """Its hardware address."""
        return str(self._known("mac"))

    @property
    def ip(self) -> str:
        """Its address in walt-net."""
        return str(self._known("ip"))

    @property
    def model(self) -> str:
        """Its model, such as pc-x86-64."""
        return str(self._known("model"))

    @property
    def virtual(self) -> bool:
        """Whether the platform emulates it."""
        return bool(self._known("virtual"))

    @property
    def booted(self) -> bool:
        """Whether it is booted now."""
        return bool(self._asked("booted"))

    @property
    def gateway(self) -> str:
        """Its router, empty unless it is in NAT mode."""
        return str(self._known("gateway"))

    @property
    def netmask(self) -> str:
        """The mask of walt-net."""
        return str(self._known("netmask"))

    @property
    def netsetup(self) -> int:
        """0: walt-net alone (LAN); 1: it reaches further (NAT)."""
        return int(self._known("netsetup"))

    @property
    def in_walt_net(self) -> bool:
        """Whether its address is in walt-net."""
        return bool(self._known("in_walt_net"))

    @property
    def type(self) -> str:
        """`node`."""
        return str(self._known("type"))

    @property
    def device_type(self) -> str:
        """`node`."""
        return self.type

    @property
    def owner(self) -> str:
        """Whose image it boots; `waltplatform` when it is free."""
        return str(self._asked("image")).partition("/")[0]

    @property
    def image(self) -> Image:
        """The image that it boots."""
        return image_of(self._asked("image"), self._record["model"])

    @property
    def config(self) -> NodeConfiguration:
        """Its settings, which can be written."""
        self._check()
        return NodeConfiguration(self)

    def run(self, command: str, timeout: float | None = None, force: bool = False) -> Result:
        """Run a command, once it is booted: its status, output and error"""
        until = None if timeout is None else time.monotonic() + timeout
        name = self._reachable(timeout, force)
        return run(name, command, None if until is None else max(0.0, until - time.monotonic()))

    def start(
        self, command: str, ready: str | None = None, timeout: float | None = None,
        force: bool = False,
    ) -> Program:
        """Start a command that runs meanwhile: a context, at whose end it is ended"""
        name = self._reachable(timeout, force)
        program = Program(name, command)
        try:
            if ready is not None:
                program.ready(ready, timeout)
        except BaseException:
            program.stop()
            raise
        return program

    def put(self, source: str, target: str = "", force: bool = False) -> None:
        """Copy a file or a directory to it"""
        from walt.client.scripting.copying import put

        put(self._reachable(None, force), source, target)

    def get(self, source: str, target: str = ".", force: bool = False) -> None:
        """Copy a file or a directory from it"""
        from walt.client.scripting.copying import get

        get(self._reachable(None, force), source, target)

    def _reachable(self, timeout: float | None, force: bool) -> str:
        """Return its name when it is booted. Raises TimeoutException, Failure."""
        self._check_owner(force)
        name = self._names()
        LINK.call("cs.nodes.wait", nodes=name, time_limit=timeout)
        return name

    def rename(self, new_name: str, force: bool = False) -> None:
        """Rename this node"""
        self._check_owner(force)
        operations.rename(LINK, self._names(), new_name)
        self._record = {**self._record, "name": new_name}

    def _forget(self, call: str, force: bool) -> None:
        self._check_owner(force)
        try:
            LINK.call(call, name=self._names(), force=force)
        except Refused as refused:
            if refused.code != "CONFLICT" or force:
                raise
            raise NodeHasLogsException(str(refused)) from None
        self._gone = True


class VirtualNode(Node):
    """A node that the platform emulates."""

    @property
    def _title(self) -> str:  # type: ignore[override]
        return f"virtual node {self._record['name']}"

    def remove(self, force: bool = False) -> None:
        """Remove this virtual node"""
        self._forget("cs.nodes.remove", force)


class PhysicalNode(Node):
    """A board or a PC."""

    def forget(self, force: bool = False) -> None:
        """Forget this node"""
        self._forget("cs.devices.forget", force)


class NodeSet(Operations, ItemSet[Node]):
    """Nodes; an operation concerns all of them."""

    _plural = "nodes"

    def _names(self) -> str:
        names = self.keys()
        if not names:
            raise Failure("there is no node in this set")
        return ",".join(names)

    def _fresh(self) -> list[Node]:
        members = self.values()
        found = set(find(self._names())) if members else set()
        return [node for node in members if node in found]

    def run(
        self, command: str, timeout: float | None = None, force: bool = False
    ) -> dict[str, Result]:
        """Run a command on all of them at once: a result for each name"""
        until = None if timeout is None else time.monotonic() + timeout
        self._check_owner(force)
        LINK.call("cs.nodes.wait", nodes=self._names(), time_limit=timeout)
        left = None if until is None else max(0.0, until - time.monotonic())
        return _on_each(self.keys(), lambda name: run(name, command, left))

    def put(self, source: str, target: str = "", force: bool = False) -> None:
        """Copy a file or a directory to each of them"""
        from walt.client.scripting.copying import put

        self._check_owner(force)
        LINK.call("cs.nodes.wait", nodes=self._names())
        _on_each(self.keys(), lambda name: put(name, source, target))

    def collect(self, source: str, target: str = ".", force: bool = False) -> None:
        """Copy a file or a directory of each of them into a directory with its name"""
        from walt.client.scripting.copying import get

        self._check_owner(force)
        LINK.call("cs.nodes.wait", nodes=self._names())

        def one(name: str) -> None:
            place = os.path.join(target, name)
            os.makedirs(place, exist_ok=True)
            get(name, source, place + "/")

        _on_each(self.keys(), one)

    def filter(self, **attrs: object) -> NodeSet:
        """Return the nodes whose attributes have the given values"""
        nodes = self._fresh()
        for name in attrs:
            if name not in Node._readable():
                self._unknown(name)
        return NodeSet(
            node for node in nodes
            if all(_value(node, name) == value for name, value in attrs.items())
        )

    def _others(self, other: object) -> list[Node]:
        if isinstance(other, Node):
            return [other]
        if isinstance(other, NodeSet):
            return other.values()
        raise TypeError(f"neither a node nor a set of nodes: {other!r}")


def _on_each(names: list[str], work: Callable[[str], T]) -> dict[str, T]:
    """Do something for each name at once; return the results when all are done.

    Raises the first error, in the order of the names.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(AT_ONCE, len(names))) as threads:
        running = {name: threads.submit(work, name) for name in names}
    return {name: future.result() for name, future in running.items()}


def _value(node: Node, name: str) -> object:
    """Return an attribute of a node that was just read, without asking again."""
    if name == "booted":
        return node._record["booted"]
    if name == "owner":
        return node._record["image"].partition("/")[0]
    if name == "image":
        return image_of(node._record["image"], node._record["model"])
    return getattr(node, name)


def set_text(node_set: object) -> str:
    """Return the text of a set given as a text, an object, or names and objects.

    Raises TypeError for anything else.
    """
    if isinstance(node_set, str):
        return node_set
    if isinstance(node_set, (Node, NodeSet)):
        return node_set._names()
    name = getattr(node_set, "name", None)
    if isinstance(name, str):
        return name
    try:
        members: Iterable[object] = iter(node_set)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"not a set of nodes: {node_set!r}") from None
    return ",".join(map(set_text, members))
