"""Copies of files to and from nodes and images, by the rules of `cp` (user-surface §1.13)."""

from __future__ import annotations

import os
from contextlib import contextmanager

from walt.client.errors import FAILED, Failure, Refused
from walt.client.operations.archives import kind_of
from walt.client.operations.transfers import receive, send
from walt.common.errors import WaltError
from walt.common.transfers import DOWNLOAD, resolve

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    from walt.client.calls import Calls
    from walt.client.operations.transfers import Listener
    from walt.common.transfers import Transfer


def download(
    request: str, parameters: dict[str, str], transfer: Transfer, kind: str,
    listener: Listener,
) -> int:
    """Fetch a remote source of some kind; return the exit status of the remote side."""
    source, target = transfer.source.path, transfer.target.path
    place = resolve(
        source, kind, target, kind_of(target), kind_of(os.path.dirname(target) or "."),
        slash=transfer.target.slash,
    )
    return receive(request, {**parameters, "path": source}, kind, place, listener)


def upload(
    request: str, parameters: dict[str, str], transfer: Transfer, kind: str, parent: str,
    listener: Listener,
) -> int:
    """Send a local source; `kind` and `parent` tell about the remote target."""
    source = transfer.source.path
    target = transfer.target
    place = resolve(source, kind_of(source), target.path, kind, parent, slash=target.slash)
    return send(request, parameters, source, kind_of(source), place, listener)


@contextmanager
def errors_shown(status: int = FAILED) -> Iterator[None]:
    """Turn errors of the rules of cp into failures of the command, with this exit status."""
    try:
        yield
    except WaltError as error:
        raise Failure(str(error), status) from None


def path_kinds(calls: Calls, node: str, path: str) -> tuple[str, str]:
    """Return of which kinds a path on a node, and the directory that it is in, are."""
    kind, parent = calls.json("cs.nodes.path_kinds", "kinds", node=node, path=path)
    return kind, parent


def node_copy(
    node: str, transfer: Transfer, kinds: tuple[str, str], listener: Listener
) -> int:
    """Copy files to or from a node; return the exit status of the remote side.

    `kinds` tell about the place on the node (`path_kinds`). Raises Failure.
    """
    with errors_shown():
        if transfer.direction == DOWNLOAD:
            return download("REQ_TAR_FROM_NODE", {"node": node}, transfer, kinds[0], listener)
        return upload("REQ_TAR_TO_NODE", {"node": node}, transfer, *kinds, listener)


def booted_image_warning(calls: Calls, node: str) -> str:
    """Return what a change of the image that a node boots would do. Raises Refused."""
    return calls.call("cs.nodes.check_booted_image", node=node)[b"warning"].decode()


def to_booted_image(calls: Calls, node: str, path: str) -> bool:
    """Copy a path of a node into the image that it boots; tell whether its nodes restarted."""
    return calls.call("cs.nodes.cp_to_booted_image", node=node, path=path)[b"ok"] == b"True"


def save_warning(calls: Calls, node: str, image: str) -> str:
    """Return what saving a node as an image would replace, if anything. Raises Refused."""
    return calls.call("cs.nodes.check_save", node=node, image=image)[b"warning"].decode()


def save(calls: Calls, node: str, image: str) -> bool:
    """Make an image of what a node boots and of the files changed since it booted.

    Tell whether it is there, and its nodes restarted.
    """
    try:
        answer = calls.call("cs.nodes.save", node=node, image=image)
    except Refused as refused:
        raise Failure(
            f"{refused}\nThe image was not saved. See `walt help show node-save`."
        ) from None
    return answer[b"ok"] == b"True"
