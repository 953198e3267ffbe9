"""REQ_DOCKER_PROMPT, REQ_TAR_FROM_IMAGE, REQ_TAR_TO_IMAGE: commands in image sessions.

The session was opened by a call (cs.images.open); it belongs to that connection.
"""

from __future__ import annotations

from typing import Any

from walt.common.errors import Invalid
from walt.server.domain.images.sessions import ImageSession, ImageSessions
from walt.server.domain.nodes.sessions import ISession, ISessions
from walt.server.domain.transfers import receive_script, send_script
from walt.server.streams.node_command import SessionRequest, parse_terminal
from walt.server.streams.transfers import checked_kind, checked_path, checked_place


class ImageCommands:
    """What the requests of one server share."""

    def __init__(self, images: ImageSessions, programs: ISessions) -> None:
        self.images = images
        self.programs = programs


class _InSession(SessionRequest[ImageCommands]):
    """A program in the container of the session named by the parameter `session`."""

    def opened_session(self, parameters: dict[str, Any], owner: ImageCommands) -> ImageSession:
        """Return the session. Raises Invalid or NotFound."""
        name = parameters.get("session")
        if not isinstance(name, str):
            raise Invalid("session must be a text")
        return owner.images.named(name)

    def spawn(self, argv: list[str], parameters: dict[str, Any], owner: ImageCommands) -> ISession:
        """Start the program."""
        return owner.programs.program(
            argv, terminal=parse_terminal(parameters.get("terminal")),
            output=self.data, errors=self.errors, ended=self.ended,
        )


class ImageShellRequest(_InSession):
    """Parameters: session, terminal {term, rows, columns}."""

    def start(self, parameters: dict[str, Any], owner: ImageCommands) -> ISession:
        """Run the shell."""
        session = self.opened_session(parameters, owner)
        self._image = session
        terminal = parameters.get("terminal") is not None
        return self.spawn(session.command(session.shell, terminal=terminal), parameters, owner)

    def ended(self, status: int) -> None:
        """The shell ended: what it left behind ends, too, while the person thinks of a name."""
        self._image.freeze()
        super().ended(status)


class TarFromImageRequest(_InSession):
    """Parameters: session, path, kind, merge. The client receives a tar archive."""

    def start(self, parameters: dict[str, Any], owner: ImageCommands) -> ISession:
        """Archive a file, or the content of a directory."""
        script = send_script(
            checked_path(parameters, "path"), checked_kind(parameters),
            merge=parameters.get("merge") is True,
        )
        session = self.opened_session(parameters, owner)
        return self.spawn(session.script(script), {}, owner)


class TarToImageRequest(_InSession):
    """Parameters: session, directory, name, kind. The client sends a tar archive."""

    def start(self, parameters: dict[str, Any], owner: ImageCommands) -> ISession:
        """Unpack an archive."""
        script = receive_script(checked_place(parameters), checked_kind(parameters))
        session = self.opened_session(parameters, owner)
        return self.spawn(session.script(script), {}, owner)
