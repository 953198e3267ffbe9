"""Candidates for words of the command line (spec server §7.5, user-surface §1.16)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from walt.common.errors import WaltError
from walt.common.names import short_image_name
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.sets import parse_devices
from walt.server.domain.devices.settings import CATEGORIES, SETTINGS
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.links import LOCAL, link_to
from walt.server.domain.images.places import Places
from walt.server.domain.logs.interfaces import ICheckpoints
from walt.server.domain.nodes.remote_paths import RemotePaths, operands

NODE_KEYWORDS = ("my-nodes", "all-nodes", "free-nodes")
DEVICE_KEYWORDS = ("all-devices", "all-switches", "explorable-switches", *NODE_KEYWORDS)
NO_SPACE_AFTER = ("/", ":", "=")
RELATIVE_TIME = "-<relative-time>"
TIME_UNITS = ("s", "m", "h", "d")

Candidates = Callable[[Sequence[str], str, str], list[str] | Awaitable[list[str]]]


class Completion:
    """Completes arguments by their type; see `complete`.

    `former` are the names of forgotten devices whose log lines were kept.
    """

    def __init__(
        self, registry: DeviceRegistry, images: ImageService, places: Places,
        checkpoints: ICheckpoints, paths: RemotePaths, former: Collection[str],
    ) -> None:
        self._registry = registry
        self._images = images
        self._places = places
        self._checkpoints = checkpoints
        self._types: dict[str, Candidates] = {
            "NODE": self._one("node"),
            "SET_OF_NODES": self._set(NODE_KEYWORDS, "node"),
            "DEVICE": self._one(),
            "SWITCH": self._one("switch"),
            "SET_OF_DEVICES": self._set(DEVICE_KEYWORDS),
            "RESCAN_SET_OF_DEVICES": self._set(("explorable-switches", "server"), "switch"),
            "SET_OF_ISSUERS": lambda words, partial, user: self._set(
                (*NODE_KEYWORDS, "server", *former), "node", "server"
            )(words, partial, user),
            "IMAGE": self._image,
            "IMAGE_OR_DEFAULT": self._image_or_default,
            "NODE_CONFIG_PARAM": self._setting,
            "DEVICE_CONFIG_PARAM": self._setting,
            "PORT_CONFIG_PARAM": lambda words, partial, user: matching(["name="], partial),
            "IMAGE_CLONE_URL": self._link,
            "REGISTRY": lambda words, partial, user: matching(
                ["auto", *(info.label for info in places.infos())], partial
            ),
            "LOG_CHECKPOINT": self._checkpoint,
            "HISTORY_RANGE": self._history,
            "NODE_CP_SRC": paths.node_source,
            "NODE_CP_DST": paths.node_target,
            "IMAGE_CP_SRC": paths.image_source,
            "IMAGE_CP_DST": paths.image_target,
        }

    async def complete(
        self, kind: str, words: Sequence[str], partial: str, user: str
    ) -> list[str]:
        """Return the candidates for an argument, sorted; none for what cannot be completed.

        `kind` is its type (spec user-surface §1.16), `words` what was typed before
        it, `partial` its beginning. Paths of the client are not among them. A single
        candidate after which no space may come is returned as two, with suffixes a
        and b: shells then complete what they have in common.
        """
        candidates = self._types.get(kind)
        answer = candidates(words, partial, user) if candidates is not None else []
        found = sorted(answer if isinstance(answer, list) else await answer)
        if len(found) == 1 and found[0].endswith(NO_SPACE_AFTER):
            return [found[0] + "a", found[0] + "b"]
        return found

    def _names(self, types: Sequence[str]) -> list[str]:
        return [device.name for device in self._registry.all() if not types or device.type in types]

    def _one(self, *types: str) -> Candidates:
        return lambda words, partial, user: matching(self._names(types), partial)

    def _set(self, keywords: Sequence[str], *types: str) -> Candidates:
        def complete(words: Sequence[str], partial: str, user: str) -> list[str]:
            *before, item = partial.split(",")
            names = set((*self._names(types), *keywords)) - set(before)
            found = [",".join([*before, name]) for name in matching(names, item)]
            return [found[0], f"{found[0]},"] if len(found) == 1 else found

        return complete

    async def _image_or_default(
        self, words: Sequence[str], partial: str, user: str
    ) -> list[str]:
        return [*await self._image(words, partial, user), *matching(["default"], partial)]

    async def _image(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        await self._images.welcome(user)
        names = {short_image_name(image.fullname) for image in self._images.working_set(user)}
        tagged = {f"{name}:latest" for name in names if ":" not in name}
        found = matching(names | tagged, partial)
        if len(found) == 2 and found[1] == f"{found[0]}:latest":
            return found[:1]
        return found

    def _setting(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Settings that apply to all the devices of the set, which is the word after `config`."""
        given = operands(words, "config")
        try:
            devices = parse_devices(self._registry, given[0], user) if given else []
        except WaltError:
            return []
        subnet = self._registry.subnet
        # Each category is looked at once: there may be thousands of devices.
        common = {
            name for name, (rule, _) in CATEGORIES.items()
            if devices and all(rule(device, subnet) for device in devices)
        }
        return matching((
            f"{setting.name}=" for setting in SETTINGS.values() if setting.category in common
        ), partial)

    def _link(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Locations; after `walt:`, the images of other users."""
        if not partial.startswith(f"{LOCAL}:"):
            return matching((f"{location}:" for location in self._places.locations), partial)
        return matching((
            link_to(LOCAL, image.fullname) for image in self._images.all() if image.user != user
        ), partial)

    async def _names_of_moments(self, user: str) -> list[str]:
        return [name for _, name in await self._checkpoints.all_of(user)]

    async def _checkpoint(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        return matching(await self._names_of_moments(user), partial)

    async def _history(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Ranges: words for whole ones, or a start, a colon, an end (spec user-surface §1.4)."""
        start, colon, end = partial.partition(":")
        moments = [*await self._names_of_moments(user), *_relative_times(end if colon else start)]
        if colon:
            return matching((f"{start}:{moment}" for moment in ("", *moments)), partial)
        return matching(("full", "none", ":", *(f"{moment}:" for moment in moments)), partial)


def _relative_times(partial: str) -> list[str]:
    """Return what a relative date may become; until there is a number, its form."""
    number = partial[1:].rstrip("".join(TIME_UNITS))
    if partial.startswith("-") and number.isascii() and number.isdigit():
        return [f"-{number}{unit}" for unit in TIME_UNITS]
    return [RELATIVE_TIME]


def matching(candidates: Iterable[str], partial: str) -> list[str]:
    """Return the candidates that begin with what was typed, sorted."""
    return sorted(candidate for candidate in candidates if candidate.startswith(partial))
