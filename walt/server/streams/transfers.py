"""REQ_TAR_FROM_NODE and REQ_TAR_TO_NODE: archives of files of nodes (S-157)."""

from __future__ import annotations

from typing import Any

from walt.common.errors import Invalid
from walt.common.transfers import DIRECTORY, FILE, MAX_PATH, Place
from walt.server.domain.nodes.sessions import ISession
from walt.server.domain.transfers import receive_script, send_script
from walt.server.streams.node_command import NodeCommands, SessionRequest, node_address


def checked_path(parameters: dict[str, Any], key: str) -> str:
    """Return the absolute remote path in a parameter. Raises Invalid."""
    path = parameters.get(key)
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise Invalid(f"{key} must be an absolute path without NUL")
    if len(path) > MAX_PATH:
        raise Invalid(f"{key} is longer than {MAX_PATH} characters")
    return path


def checked_kind(parameters: dict[str, Any]) -> str:
    """Return the kind of the source in the parameters: a file or a directory. Raises Invalid."""
    kind = parameters.get("kind")
    if kind not in (FILE, DIRECTORY):
        raise Invalid("kind tells whether the source is a file or a directory")
    return str(kind)


def checked_place(parameters: dict[str, Any]) -> Place:
    """Return the place in the parameters `directory` and `name` (null: merge). Raises Invalid."""
    name = parameters.get("name")
    if name is not None and (
        not isinstance(name, str) or "/" in name or "\0" in name or name in ("", ".", "..")
        or len(name) > MAX_PATH
    ):
        raise Invalid("this is not the name of a file")
    return Place(checked_path(parameters, "directory"), name)


class TarFromNodeRequest(SessionRequest[NodeCommands]):
    """Parameters: node, path, kind, merge. The client receives a tar archive."""

    def start(self, parameters: dict[str, Any], owner: NodeCommands) -> ISession:
        """Archive a file, or the content of a directory, of a node."""
        script = send_script(
            checked_path(parameters, "path"), checked_kind(parameters),
            merge=parameters.get("merge") is True,
        )
        return owner.sessions.node_command(
            node_address(parameters, owner, "files read", self), script,
            node_terminal=False, terminal=None,
            output=self.data, errors=self.errors, ended=self.ended,
        )


class TarToNodeRequest(SessionRequest[NodeCommands]):
    """Parameters: node, directory, name, kind. The client sends a tar archive."""

    def start(self, parameters: dict[str, Any], owner: NodeCommands) -> ISession:
        """Unpack an archive on a node."""
        script = receive_script(checked_place(parameters), checked_kind(parameters))
        return owner.sessions.node_command(
            node_address(parameters, owner, "files written", self), script,
            node_terminal=False, terminal=None,
            output=self.data, errors=self.errors, ended=self.ended,
        )
