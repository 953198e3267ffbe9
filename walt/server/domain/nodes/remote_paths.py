"""Candidates for paths of nodes and inside images, on the command line of `cp`.

Spec user-surface §1.16. A remote side that does not answer in time has none.
"""

from __future__ import annotations

import posixpath
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from walt.common.errors import WaltError
from walt.common.names import short_image_name
from walt.common.transfers import BOOTED_IMAGE, HOME, split_operand
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.files import ImageFiles
from walt.server.domain.nodes.files import NodeFiles
from walt.server.runtime.coroutines import shielded

PATIENCE = 3.0  # seconds: who types gives up after 4


class RemotePaths:
    """Completes operands of `walt node cp` and `walt image cp`."""

    def __init__(
        self, registry: DeviceRegistry, images: ImageService, node_files: NodeFiles,
        image_files: ImageFiles, clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._images = images
        self._node_files = node_files
        self._image_files = image_files
        self._clock = clock

    async def node_source(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Return candidates for what is copied: nodes, then paths of one."""
        names = [f"{node.name}:" for node in self._registry.nodes()]
        return _merged(names, await self._of_node(partial), partial)

    async def node_target(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Return candidates for where it goes: a side is local, the other one is not."""
        if _source_is_remote(words):
            return _matching([BOOTED_IMAGE], partial)
        return await self.node_source(words, partial, user)

    async def image_source(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Return candidates for what is copied: images of the user, then paths of one."""
        mine = self._images.working_set(user)
        names = [f"{short_image_name(image.fullname)}:" for image in mine]
        return _merged(names, await self._of_image(partial, user), partial)

    async def image_target(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Return candidates for where it goes."""
        return [] if _source_is_remote(words) else await self.image_source(words, partial, user)

    async def _of_node(self, partial: str) -> list[str]:
        name, typed = split_operand("node", partial) or ("", "")
        node = self._registry.by_name(name)
        if node is None or not node.is_node or node.ip is None:
            return []
        return await self._below(
            partial, typed, lambda directory, prefix: self._node_files.entries(
                str(node.ip), directory, prefix
            ),
        )

    async def _of_image(self, partial: str, user: str) -> list[str]:
        name, typed = split_operand("image", partial) or ("", "")
        try:
            fullname = self._images.fullname(user, name)
            image = self._images.get(fullname)
        except WaltError:
            return []
        return await self._below(
            partial, typed,
            lambda directory, prefix: self._image_files.entries(image, directory, prefix),
        )

    async def _below(self, partial: str, typed: str, entries: Any) -> list[str]:
        before, slash, prefix = typed.rpartition("/")
        beginning = partial[:len(partial) - len(prefix)]
        found = await self._in_time(
            entries(posixpath.join(HOME, before + slash), prefix)
        )
        return [f"{beginning}{name}" for name in found if name.startswith(prefix)]

    async def _in_time(self, question: Coroutine[Any, Any, list[str]]) -> list[str]:
        """Return an answer, or nothing when it is late; the next question finds a shell then."""
        running = shielded(Deferred.fromCoroutine(_quiet(question)))
        try:
            return await running.addTimeout(PATIENCE, self._clock)
        except TimeoutError:
            return []


async def _quiet(question: Coroutine[Any, Any, list[str]]) -> list[str]:
    try:
        return await question
    except WaltError:
        return []


def operands(words: Sequence[str], subcommand: str) -> list[str]:
    """Return the words after a subcommand that are no switches."""
    after = words[words.index(subcommand) + 1:] if subcommand in words else ()
    return [word for word in after if not word.startswith("-")]


def _source_is_remote(words: Sequence[str]) -> bool:
    kind = "image" if "image" in words[:2] else "node"
    return any(split_operand(kind, word) is not None for word in operands(words, "cp")[:1])


def _matching(candidates: Iterable[str], partial: str) -> list[str]:
    return [candidate for candidate in candidates if candidate.startswith(partial)]


def _merged(names: Iterable[str], paths: list[str], partial: str) -> list[str]:
    """Return names that match, and paths; a name that is typed already gives way to its paths."""
    return [*(name for name in _matching(names, partial) if name != partial or not paths), *paths]
