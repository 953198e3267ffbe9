"""`walt node cp` and `walt node save`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from walt.client.archives import kind_of
from walt.client.errors import FAILED, WRONG_WORDS, Failure, Refused
from walt.client.nodes import UNREACHABLE, WAITING, may_disturb, single, wait_booted
from walt.client.session import Session
from walt.client.terminal import Terminal, clean_up_at_signals, confirm
from walt.client.transfer import receive, send
from walt.common.errors import WaltError
from walt.common.transfers import DOWNLOAD, TO_BOOTED_IMAGE, parse_transfer, resolve

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    from walt.common.transfers import Transfer


def node_cp(source: str, destination: str, plan: bool = False, as_json: bool = False) -> int:
    """Copy files to or from a node, or from a node into the image that it boots.

    With `plan` nothing is copied; see `walt.client.plan`.
    """
    clean_up_at_signals()
    with errors_shown(WRONG_WORDS):
        transfer = parse_transfer("node", source, destination)
    session = Session(Terminal(WAITING))
    name = single(session, transfer.entity)
    if plan:
        return _plan(session, name, transfer, as_json)
    session.call("cs.nodes.check_reachable", node=name)
    if transfer.direction == TO_BOOTED_IMAGE:
        return _to_booted_image(session, name, transfer.source.path)
    if not may_disturb(session, name):
        return 1
    wait_booted(session, name)
    remote = transfer.source if transfer.direction == DOWNLOAD else transfer.target
    kind, parent = session.json("cs.nodes.path_kinds", "kinds", node=name, path=remote.path)
    session.close()
    with errors_shown():
        if transfer.direction == DOWNLOAD:
            status = download("REQ_TAR_FROM_NODE", {"node": name}, transfer, kind)
        else:
            status = upload("REQ_TAR_TO_NODE", {"node": name}, transfer, kind, parent)
    if status == UNREACHABLE:
        raise Failure(f"node {name} is unreachable; retry later")
    return 1 if status else 0


def _plan(session: Session, name: str, transfer: Transfer, as_json: bool) -> int:
    from walt.client import plan

    if transfer.direction != TO_BOOTED_IMAGE:
        return plan.tell_plan(session, as_json, plan.NOTHING, devices=name)
    session.call("cs.nodes.check_booted_image", node=name)
    (node,) = session.json("cs.nodes.get", "nodes", nodes=name)
    return plan.tell_plan(session, as_json, image=node["image"].partition("/")[2])


def download(
    request: str, parameters: dict[str, str], transfer: Transfer, kind: str,
    told: list[str] | None = None,
) -> int:
    """Fetch a remote source of some kind; return the exit status of the remote side.

    With `told` nothing is printed; see `walt.client.transfer`.
    """
    source, target = transfer.source.path, transfer.target.path
    place = resolve(
        source, kind, target, kind_of(target), kind_of(os.path.dirname(target) or "."),
        slash=transfer.target.slash,
    )
    return receive(request, {**parameters, "path": source}, kind, place, told)


def upload(
    request: str, parameters: dict[str, str], transfer: Transfer, kind: str, parent: str,
    told: list[str] | None = None,
) -> int:
    """Send a local source; `kind` and `parent` tell about the remote target, `told` as above."""
    source = transfer.source.path
    target = transfer.target
    place = resolve(source, kind_of(source), target.path, kind, parent, slash=target.slash)
    return send(request, parameters, source, kind_of(source), place, told)


@contextmanager
def errors_shown(status: int = FAILED) -> Iterator[None]:
    """Turn errors of the rules of cp into failures of the command, with this exit status."""
    try:
        yield
    except WaltError as error:
        raise Failure(str(error), status) from None


def _to_booted_image(session: Session, name: str, path: str) -> int:
    warning = session.call("cs.nodes.check_booted_image", node=name)[b"warning"].decode()
    print(warning, file=sys.stderr)
    if not confirm():
        return 1
    wait_booted(session, name)
    answer = session.call("cs.nodes.cp_to_booted_image", node=name, path=path)
    return 0 if answer[b"ok"] == b"True" else 1


def node_save(node_name: str, image_name: str) -> int:
    """Make an image of what a node boots and of the files changed since it booted."""
    session = Session(Terminal("Saving"))
    name = single(session, node_name)
    if not may_disturb(session, name):
        return 1
    warning = session.call(
        "cs.nodes.check_save", node=name, image=image_name
    )[b"warning"].decode()
    if warning:
        print(warning, file=sys.stderr)
        if not confirm():
            return 1
    try:
        answer = session.call("cs.nodes.save", node=name, image=image_name)
    except Refused as refused:
        raise Failure(
            f"{refused}\nThe image was not saved. See `walt help show node-save`."
        ) from None
    return 0 if answer[b"ok"] == b"True" else 1
