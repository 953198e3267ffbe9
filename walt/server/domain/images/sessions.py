"""Image sessions: commands in a container of an image, whose changes can be saved.

Rules of spec server §4.5: one task per image, 128 layers at most, a session that
ends unsaved leaves nothing, one that is being saved is saved whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from walt.common.errors import Conflict, NotFound, WaltError
from walt.common.names import short_image_name
from walt.common.sentences import some
from walt.server.domain.images.model import MAX_LAYERS, ContainerOptions, StoredImage
from walt.server.domain.images.interfaces import IContainers, IImageUsers
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.requester import IRequester
from walt.server.runtime.coroutines import shielded, spawn, unbroken

_log = Logger()

START, SHUTDOWN = "/bin/walt-image-shell-start", "/bin/walt-image-shell-shutdown"
_EXPLORE = (
    "[ -x /bin/bash ] && echo bash; "
    f"[ -x {START} ] && [ -x {SHUTDOWN} ] && echo system; "
    "[ -f /etc/cpuinfo ] && echo cpuinfo; :"
)
MAX_CPUINFO = 1 << 20
TRANSFER = "transfer"  # the task of those who send or fetch files
SHELL = "shell"  # the task of those who may want something of the outside


class ImageSession:
    """A container of an image. Its users may run commands, save it, and must close it."""

    def __init__(
        self, owner: ImageSessions, image: StoredImage, container: str, held: ExitStack, label: str
    ) -> None:
        self.image = image
        self.name = secrets.token_hex(16)
        self.shell = _shell("/bin/sh")
        self._owner = owner
        self._container = container
        self._container_changes = DeferredLock()
        self._held = held
        self._label = label
        self._volatile: list[str] = []
        self._frozen: Deferred[Any] | None = None
        self._saving: Deferred[Any] | None = None
        self._closing: Deferred[Any] | None = None
        self._shutdown: str | None = None
        self._programs = False  # whether something may still run when its command ended

    @property
    def fullname(self) -> str:
        """The full name of the image that was opened."""
        return self.image.fullname

    def command(self, argv: Sequence[str], *, terminal: bool = False) -> list[str]:
        """Return the vector of a program (on the host's network) that runs a command.

        `terminal`: the program is started in a pseudo-terminal.
        """
        return self._owner.containers.command(self._container, argv, terminal=terminal)

    def script(self, script: str) -> list[str]:
        """Return the vector of a program that runs a POSIX sh script (tar… included)."""
        return self.command(self._owner.containers.script(script))

    async def run(self, script: str, *, input_fd: int | None = None) -> bytes:
        """Run a POSIX sh script; return its output. Raises CommandFailed.

        `input_fd` is a descriptor of the caller (a file, the end of a pipe) that
        becomes its standard input.
        """
        output: bytes = await self._owner.containers.run(
            self._container, script, input_fd=input_fd
        )
        return output

    async def unpack(self, input_fd: int) -> list[str]:
        """Unpack what changed on a node; see IContainers.unpack."""
        left_out: list[str] = await self._owner.containers.unpack(self._container, input_fd)
        return left_out

    async def prepare_shell(self, requester: IRequester) -> None:
        """Find out which shell this image has (`shell`); tell the requester what kind it is.

        An image with the programs walt-image-shell-start and -shutdown runs its
        whole operating system meanwhile.
        """
        self._programs = True
        found = (await self.run(_EXPLORE)).decode(errors="replace").split()
        cpuinfo = None
        if "cpuinfo" in found:
            cpuinfo = await self.run(f"head -c {MAX_CPUINFO} /etc/cpuinfo")
        system = "system" in found
        if system or cpuinfo is not None:
            options = ContainerOptions(START if system else None, cpuinfo, outside=True)
            await self._restart(options)
        if system:
            self._shutdown = SHUTDOWN
            requester.stdout("The operating system of this image is running in this session.")
        else:
            requester.stdout("This is a shell in a container: no service of the image is running.")
        if "bash" in found:
            self.shell = _shell("/bin/bash")

    @unbroken
    async def _restart(self, options: ContainerOptions) -> None:
        async with self._container_changes:
            old = self._container
            self._container = await self._owner.containers.start(self.image, options)
            await self._owner.containers.remove(old)

    def freeze(self) -> Deferred[Any]:
        """The commands are done: end what still runs; fires when that is so."""
        if self._frozen is None:
            self._frozen = spawn(self._freeze(), "ending the programs of a container")
        return self._frozen

    async def _look(self) -> None:
        """Find what a commit would leave out. The services of an image have much in memory."""
        if self._shutdown is None:
            self._volatile = await self._owner.containers.volatile(self._container)

    async def _freeze(self) -> None:
        try:
            await self._look()
        except WaltError as error:
            _log.info("files of {image}: {error}", image=self.fullname, error=str(error))
        if self._shutdown is not None:
            try:
                await self.run(self._shutdown)
            except WaltError as error:
                _log.info("shutting down {image}: {error}", image=self.fullname, error=str(error))
        await self._owner.containers.freeze(self._container)

    async def save(self, fullname: str, requester: IRequester) -> bool:
        """Make the changes an image named `fullname` (it may exist: confirm before).

        Nodes that boot it are rebooted; returns whether that succeeded. A requester
        who leaves does not keep it from being saved whole. Raises Busy, Conflict or
        CommandFailed; the image is the old one then.
        """
        if self._closing is not None or self._saving is not None:
            raise Conflict("this session has ended already")
        self._saving = Deferred.fromCoroutine(self._save(fullname, requester))
        done: bool = await shielded(self._saving)
        return done

    async def _save(self, fullname: str, requester: IRequester) -> bool:
        owner = self._owner
        with ExitStack() as held:
            if fullname != self.fullname:
                held.enter_context(owner.images.task(fullname, "save"))
            replaced = owner.images.has(fullname)
            if self._programs:
                await shielded(self.freeze())
            else:
                await self._look()
            if self._volatile and self._label == TRANSFER:
                raise Conflict(f"{_in_memory(self._volatile)}: nothing was saved")
            await owner.containers.commit(self._container, fullname, requester)
            await owner.images.renew(fullname)
        short = short_image_name(fullname)
        requester.stdout(
            f"Image {short} was updated." if replaced else f"New image {short} was saved."
        )
        if self._volatile:
            requester.stderr(f"{_in_memory(self._volatile)}: not saved")
        ok: bool = await owner.users.follow(fullname, requester)
        return ok

    def close(self) -> Deferred[Any]:
        """End the session; fires when its container is gone. A save goes on to its end."""
        if self._closing is None:
            self._closing = spawn(self._close(), "closing an image session")
        return shielded(self._closing)

    async def _close(self) -> None:
        if self._saving is not None:
            await shielded(self._saving).addErrback(lambda _: None)
        try:
            async with self._container_changes:
                await self._owner.containers.remove(self._container)
        finally:
            self._held.close()
            self._owner.forget(self)


def _in_memory(paths: Sequence[str]) -> str:
    """Return the beginning of a message about files that are in no image."""
    verb = "lies" if len(paths) == 1 else "lie"
    return (
        f"{some(paths)} {verb} in memory (as /run and /dev/shm do on a node),"
        " which is no part of an image"
    )


def _shell(program: str) -> list[str]:
    """Return the vector of a shell that starts in /root, if the image has one."""
    return ["/bin/sh", "-c", f"cd /root 2>/dev/null; exec {program}"]


class ImageSessions:
    """The sessions of a server. `users` provides IImageUsers, `containers` IContainers."""

    def __init__(
        self, images: ImageService, containers: IContainers, users: IImageUsers
    ) -> None:
        self.images = images
        self.containers = containers
        self.users = users
        self._open: dict[str, ImageSession] = {}

    async def open(self, fullname: str, label: str) -> ImageSession:
        """Open a session on an image; `label` says what for (shell, transfer…).

        Raises NotFound, Busy (another task), Conflict (too many layers),
        CommandFailed.
        """
        image = self.images.get(fullname)
        with ExitStack() as held:
            held.enter_context(self.images.task(fullname, label))
            check_layers(image)
            container = await self.containers.start(
                image, ContainerOptions(outside=label == SHELL)
            )
            session = ImageSession(self, image, container, held.pop_all(), label)
        self._open[session.name] = session
        return session

    def named(self, name: str) -> ImageSession:
        """Return an open session; NotFound."""
        try:
            return self._open[name]
        except KeyError:
            raise NotFound("this image session has ended") from None

    def forget(self, session: ImageSession) -> None:
        """A session has ended."""
        self._open.pop(session.name, None)

    async def stop(self) -> None:
        """Close every session: the server stops."""
        for session in list(self._open.values()):
            await session.close()


def check_layers(image: StoredImage) -> None:
    """Raise Conflict when an image cannot get another layer."""
    if not image.editable:
        short = short_image_name(image.fullname)
        raise Conflict(
            f"image {short} has {len(image.layers)} layers and cannot be changed any more"
            f" (limit: {MAX_LAYERS}); `walt image squash {short}` makes one of them"
        )
