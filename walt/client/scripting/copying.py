"""Files to and from nodes, for scripts: nothing is printed, errors are raised."""

from __future__ import annotations

import os
import posixpath

from walt.client.copies import download, errors_shown, upload
from walt.client.errors import Failure
from walt.client.scripting.link import LINK
from walt.common.transfers import DOWNLOAD, HOME, UPLOAD, Operand, Transfer, strip_slash


def put(node: str, source: str, target: str) -> None:
    """Copy a local file or directory to a booted node, as `walt node cp` does. Raises Failure."""
    transfer = Transfer(UPLOAD, _here(source), _there(node, target))
    told: list[str] = []
    with errors_shown():
        kind, parent = _kinds(node, transfer.target.path)
        status = upload("REQ_TAR_TO_NODE", {"node": node}, transfer, kind, parent, told)
    _check(status, told, f"{source} was not copied to {node}")


def get(node: str, source: str, target: str) -> None:
    """Copy a file or directory of a booted node to here, as `walt node cp` does. Raises Failure."""
    transfer = Transfer(DOWNLOAD, _there(node, source), _here(target))
    told: list[str] = []
    with errors_shown():
        kind, _ = _kinds(node, transfer.source.path)
        status = download("REQ_TAR_FROM_NODE", {"node": node}, transfer, kind, told)
    _check(status, told, f"{source} was not copied from {node}")


def _here(path: str) -> Operand:
    """Return a local operand: a colon in it means nothing."""
    text = os.fspath(path)
    return Operand(None, strip_slash(text), slash=text.endswith("/"))


def _there(node: str, path: str) -> Operand:
    """Return an operand of a node; relative paths begin in root's directory."""
    return Operand(node, strip_slash(posixpath.join(HOME, path)), slash=path.endswith("/"))


def _kinds(node: str, path: str) -> tuple[str, str]:
    kind, parent = LINK.json("cs.nodes.path_kinds", "kinds", [str], node=node, path=path)
    return kind, parent


def _check(status: int, told: list[str], text: str) -> None:
    if status:
        raise Failure(": ".join([text, *told]))
