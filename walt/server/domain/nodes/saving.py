"""What was changed on nodes, put into images (spec server §4.6, user-surface §1.7, §1.13)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from walt.common.errors import Denied, Invalid, Unavailable, WaltError
from walt.common.names import image_fullname, is_image_name, short_image_name
from walt.common.sentences import some, subject
from walt.common.transfers import resolve
from walt.server.domain.devices.model import Device
from walt.server.domain.images.sessions import TRANSFER, ImageSessions
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.files import NodeFiles
from walt.server.domain.nodes.interfaces import INodeShell
from walt.server.domain.requester import IRequester
from walt.server.domain.transfers import parse_probe, probe_script, receive_script, send_script
from walt.server.runtime.pipes import Broken, poured

DUMP = "exec /bin/_walt_internal_/walt-dump-diff-tar"
T = TypeVar("T")
PATIENCE = 3600.0  # seconds for the data of a node


class NodeChanges:
    """`walt node save` and `walt node cp … booted-image`."""

    def __init__(
        self, nodes: NodeService, files: NodeFiles, shell: INodeShell, sessions: ImageSessions
    ) -> None:
        self._nodes = nodes
        self._files = files
        self._shell = shell
        self._sessions = sessions

    def check_save(self, name: str, image: str, requester: IRequester) -> str:
        """Return what to confirm before `save`; empty: nothing. Raises Invalid or NotFound."""
        self._nodes.single(name, requester)
        fullname = self._fullname(image, requester)
        if not self._sessions.images.has(fullname):
            return ""
        return f"Warning: this will overwrite image {short_image_name(fullname)}" + (
            self._reboots(fullname) or "."
        )

    async def save(self, name: str, image: str, requester: IRequester) -> bool:
        """Make an image of what a node boots and of the files changed on it since it booted.

        Returns whether the nodes that boot this image could be rebooted. Raises
        Invalid, NotFound, Busy, Conflict (layers), Unavailable (the node) or
        CommandFailed; the image of that name, if any, is then untouched.
        """
        node, ip = self._nodes.single(name, requester)
        fullname = self._fullname(image, requester)
        session = await self._sessions.open(_image_of(node), "save")
        try:
            requester.stdout(f"Analysing the changes on node {node.name}.")
            left_out = await self._pour(ip, DUMP, session.unpack)
            if left_out:
                requester.stderr(f"Not saved: {some(left_out)}")
            requester.stdout(f"Building image {short_image_name(fullname)}.")
            return await session.save(fullname, requester)
        finally:
            await session.close()

    def check_booted_image(self, name: str, requester: IRequester) -> str:
        """Return what to confirm before `copy_to_booted_image`. Raises Denied or Invalid."""
        node, _ = self._nodes.single(name, requester)
        fullname = self._owned_image(node, requester)
        return f"Warning: this will change image {short_image_name(fullname)}" + (
            self._reboots(fullname) or "."
        )

    async def copy_to_booted_image(self, name: str, path: str, requester: IRequester) -> bool:
        """Copy a file or directory of a node to the same path of the image that it boots.

        Returns whether the nodes that boot this image could be rebooted. Raises as
        `save` does, and Denied when the image is not the requester's.
        """
        node, ip = self._nodes.single(name, requester)
        fullname = self._owned_image(node, requester)
        kind, _ = await self._files.kinds(name, path, requester)
        session = await self._sessions.open(fullname, TRANSFER)
        try:
            there = parse_probe(await session.run(probe_script(path)))
            place = resolve(path, kind, path, *there, in_place=True)
            send = send_script(path, kind, merge=place.name is None)
            receive = receive_script(place, kind)
            await self._pour(ip, send, lambda end: session.run(receive, input_fd=end))
            return await session.save(fullname, requester)
        finally:
            await session.close()

    def _fullname(self, image: str, requester: IRequester) -> str:
        if not is_image_name(image):
            raise Invalid(
                f'"{image[:80]}" is not a valid image name: use small letters, digits, dashes,'
                " and an optional tag after a colon"
            )
        return image_fullname(requester.username, image)

    def _owned_image(self, node: Device, requester: IRequester) -> str:
        fullname = _image_of(node)
        if fullname.split("/", 1)[0] != requester.username:
            raise Denied(
                f"the image that {node.name} boots is not yours;"
                f" get a copy of it first: walt node acquire {node.name}"
            )
        return fullname

    def _reboots(self, fullname: str) -> str:
        names = self._sessions.users.names(fullname)
        if not names:
            return ""
        first = subject(names)
        return f" and reboot {len(names)} node(s): {first[:1].lower()}{first[1:]}."

    async def _pour(
        self, ip: str, source: str, sink: Callable[[int], Coroutine[Any, Any, T]]
    ) -> T:
        """Run a script on a node, and give its output to `sink`; return what that returns."""
        try:
            return await poured(
                lambda output: self._shell.run(ip, source, timeout=PATIENCE, output_fd=output),
                sink,
            )
        except Broken as broken:
            raise _first(broken.errors) from None


def _first(errors: Sequence[BaseException]) -> BaseException:
    """Return the error that explains the others.

    A node that is lost comes first; else the one that stopped reading.
    """
    lost = [error for error in errors if isinstance(error, Unavailable)]
    told = [error for error in reversed(errors) if isinstance(error, WaltError)]
    return [*lost, *told, *errors][0]


def _image_of(node: Device) -> str:
    if node.image is None:
        raise Invalid(f"{node.name} boots no image")
    return node.image
