"""Files to and from nodes, for scripts: nothing is printed, errors are raised."""

from __future__ import annotations

import os
import posixpath

from walt.client.errors import Failure
from walt.client.operations.copies import errors_shown, node_copy
from walt.client.operations.transfers import Told
from walt.client.scripting.link import LINK
from walt.common.transfers import DOWNLOAD, HOME, UPLOAD, Operand, Transfer, strip_slash


def put(node: str, source: str, target: str) -> None:
    """Copy a local file or directory to a booted node, as `walt node cp` does. Raises Failure."""
    transfer = Transfer(UPLOAD, _here(source), _there(node, target))
    _copy(node, transfer, transfer.target.path, f"{source} was not copied to {node}")


def get(node: str, source: str, target: str) -> None:
    """Copy a file or directory of a booted node to here, as `walt node cp` does. Raises Failure."""
    transfer = Transfer(DOWNLOAD, _there(node, source), _here(target))
    _copy(node, transfer, transfer.source.path, f"{source} was not copied from {node}")


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


def _copy(node: str, transfer: Transfer, path: str, failure: str) -> None:
    told = Told()
    with errors_shown():
        kinds = _kinds(node, path)
    if node_copy(node, transfer, kinds, told):
        raise Failure(": ".join([failure, *told.texts]))
