"""What `walt node cp` and `walt node save` ask and print."""

from __future__ import annotations

from walt.client.commands.asking import may_disturb
from walt.client.commands.progress import Progress
from walt.client.errors import WRONG_WORDS, Failure
from walt.client.operations import copies
from walt.client.operations.nodes import single, wait_booted
from walt.client.session import Session
from walt.client.stream import UNREACHABLE
from walt.client.terminal import WAITING, Terminal, clean_up_at_signals, warned
from walt.common.transfers import DOWNLOAD, TO_BOOTED_IMAGE, parse_transfer

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.common.transfers import Transfer


def node_cp(source: str, destination: str, plan: bool = False, as_json: bool = False) -> int:
    """Copy files to or from a node, or from a node into the image that it boots.

    With `plan` nothing is copied; see `walt.client.commands.planning`.
    """
    clean_up_at_signals()
    with copies.errors_shown(WRONG_WORDS):
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
    kinds = copies.path_kinds(session, name, remote.path)
    session.close()
    status = copies.node_copy(name, transfer, kinds, Progress())
    if status == UNREACHABLE:
        raise Failure(f"node {name} is unreachable; retry later")
    return 1 if status else 0


def _plan(session: Session, name: str, transfer: Transfer, as_json: bool) -> int:
    from walt.client.commands import planning

    if transfer.direction != TO_BOOTED_IMAGE:
        return planning.tell_plan(session, as_json, planning.NOTHING, devices=name)
    copies.booted_image_warning(session, name)
    (node,) = session.json("cs.nodes.get", "nodes", nodes=name)
    return planning.tell_plan(session, as_json, image=node["image"].partition("/")[2])


def _to_booted_image(session: Session, name: str, path: str) -> int:
    if not warned(copies.booted_image_warning(session, name)):
        return 1
    wait_booted(session, name)
    return 0 if copies.to_booted_image(session, name, path) else 1


def node_save(node_name: str, image_name: str) -> int:
    """Make an image of what a node boots and of the files changed since it booted."""
    session = Session(Terminal("Saving"))
    name = single(session, node_name)
    if not may_disturb(session, name):
        return 1
    warning = copies.save_warning(session, name, image_name)
    if warning and not warned(warning):
        return 1
    return 0 if copies.save(session, name, image_name) else 1
