"""Candidates for words of the command line (spec server §7.5, user-surface §1.16)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from walt.common.errors import WaltError
from walt.common.names import short_image_name
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.sets import parse_devices
from walt.server.domain.devices.settings import CATEGORIES, SETTINGS
from walt.server.domain.images.service import ImageService

NODE_KEYWORDS = ("my-nodes", "all-nodes", "free-nodes")
DEVICE_KEYWORDS = ("all-devices", "all-switches", "explorable-switches", *NODE_KEYWORDS)
NO_SPACE_AFTER = ("/", ":", "=")

Candidates = Callable[[Sequence[str], str, str], list[str]]


class Completion:
    """Completes arguments by their type; see `complete`."""

    def __init__(self, registry: DeviceRegistry, images: ImageService) -> None:
        self._registry = registry
        self._images = images
        self._types: dict[str, Candidates] = {
            "NODE": self._one("node"),
            "SET_OF_NODES": self._set(NODE_KEYWORDS, "node"),
            "DEVICE": self._one(),
            "SWITCH": self._one("switch"),
            "SET_OF_DEVICES": self._set(DEVICE_KEYWORDS),
            "RESCAN_SET_OF_DEVICES": self._set(("explorable-switches", "server"), "switch"),
            "SET_OF_ISSUERS": self._set((*NODE_KEYWORDS, "server"), "node", "server"),
            "IMAGE": self._image,
            "IMAGE_OR_DEFAULT": lambda words, partial, user: sorted(
                [*self._image(words, partial, user), *matching(["default"], partial)]
            ),
            "NODE_CONFIG_PARAM": self._setting,
            "DEVICE_CONFIG_PARAM": self._setting,
            "PORT_CONFIG_PARAM": lambda words, partial, user: matching(["name="], partial),
        }

    def complete(self, kind: str, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Return the candidates for an argument, sorted; none for what cannot be completed.

        `kind` is its type (spec user-surface §1.16), `words` what was typed before
        it, `partial` its beginning. A single candidate after which no space may
        come is returned as two, with suffixes a and b: shells then complete what
        they have in common.
        """
        candidates = self._types.get(kind)
        found = candidates(words, partial, user) if candidates is not None else []
        if len(found) == 1 and found[0].endswith(NO_SPACE_AFTER):
            return [found[0] + "a", found[0] + "b"]
        return found

    def _names(self, types: Sequence[str]) -> list[str]:
        return [one.name for one in self._registry.all() if not types or one.type in types]

    def _one(self, *types: str) -> Candidates:
        return lambda words, partial, user: matching(self._names(types), partial)

    def _set(self, keywords: Sequence[str], *types: str) -> Candidates:
        def complete(words: Sequence[str], partial: str, user: str) -> list[str]:
            *before, item = partial.split(",")
            names = set((*self._names(types), *keywords)) - set(before)
            found = [",".join([*before, name]) for name in matching(names, item)]
            return [found[0], f"{found[0]},"] if len(found) == 1 else found

        return complete

    def _image(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        names = {short_image_name(image.fullname) for image in self._images.working_set(user)}
        tagged = {f"{name}:latest" for name in names if ":" not in name}
        found = matching(names | tagged, partial)
        if len(found) == 2 and found[1] == f"{found[0]}:latest":
            return found[:1]
        return found

    def _setting(self, words: Sequence[str], partial: str, user: str) -> list[str]:
        """Settings that apply to all the devices of the set, which is the word after `config`."""
        after = list(words[words.index("config") + 1:]) if "config" in words else []
        operands = [word for word in after if not word.startswith("-")]
        try:
            devices = parse_devices(self._registry, operands[0], user) if operands else []
        except WaltError:
            return []
        subnet = self._registry.subnet
        return matching((
            f"{setting.name}=" for setting in SETTINGS.values()
            if devices and all(CATEGORIES[setting.category][0](one, subnet) for one in devices)
        ), partial)


def matching(candidates: Iterable[str], partial: str) -> list[str]:
    """Return the candidates that begin with what was typed, sorted."""
    return sorted(one for one in candidates if one.startswith(partial))
