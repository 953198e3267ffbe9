"""What a run takes for its time, and gives back: images under names of its own, settings.

An image that has a second name stays as it is, whatever becomes of the first one: others may
replace or remove it meanwhile. Nodes that boot the private name do not follow such changes.
"""

from __future__ import annotations

from walt.client.answers import looks_wrong
from walt.client.credentials import stored
from walt.client.errors import Failure, Refused
from walt.client.experiment.model import SETTING
from walt.client.scripting.link import LINK
from walt.client.settings import username
from walt.common.errors import in_words
from walt.common.names import (
    PLATFORM_USER,
    default_image,
    image_fullname,
    image_user,
    short_image_name,
)

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Any

    from walt.client.experiment.model import Role

LAYERS = [{"fullname": str, "id": str, "layers": [str]}]
DEFAULT = "default"


def layers_of(fullnames: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return id and layers of the images that are there, by full name. Raises Failure."""
    rows = LINK.json("cs.images.layers", "images", LAYERS, images=sorted(set(fullnames)))
    return {row["fullname"]: row for row in rows}


def text_of(value: object) -> str:
    """Return the value of a setting as it is written."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


class Holding:
    """What the run of a manifest holds; the manifest tells it, so that another process goes on.

    Raises Failure for a manifest that holds what no run does: it may come from anywhere.
    """

    def __init__(self, manifest: dict[str, Any], tell: Callable[[str], object]) -> None:
        self._run: str = manifest["run"]
        self._tell = tell
        self._held: dict[str, str] = manifest.setdefault("held", {})
        self._images: Mapping[str, str] = manifest["images"]
        self._before: dict[str, dict[str, str]] = manifest.setdefault("before", {})
        nodes = {name for names in manifest["roles"].values() for name in names}
        if (
            looks_wrong(self._held, {}, "") or looks_wrong(self._before, {}, "")
            or not all(
                name.startswith(f"{username()}/run-{self._run}-") and isinstance(original, str)
                for name, original in self._held.items()
            )
            or not self._before.keys() <= nodes
            or any(looks_wrong(settings, {}, "") or not all(
                SETTING.fullmatch(name) and isinstance(value, str)
                for name, value in settings.items()
            ) for settings in self._before.values())
        ):
            raise Failure("the archive holds images or settings that are not those of its run")

    # -- images ------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether there is something to give back."""
        return bool(self._held or self._before)

    def hold(
        self, role: Role, models: Mapping[str, str], *, measured: bool
    ) -> dict[str, list[str]]:
        """Give the images of a role's nodes, whose models are told, names of this run.

        Returns the nodes by the name that they should boot. Raises Failure, also when points
        were `measured` with another image.
        """
        found: dict[str, list[str]] = {}
        for node, model in models.items():
            original = default_image(model) if role.image == DEFAULT else \
                image_fullname(username(), role.image)
            found.setdefault(self._name(original), []).append(node)
        if measured:
            self._check_same(found)
        return found

    def _check_same(self, names: Iterable[str]) -> None:
        there = layers_of(image_fullname(username(), name) for name in names)
        for private, row in there.items():
            original = self._held[private]
            if self._images.get(original, row["id"]) != row["id"]:
                raise Failure(
                    f"{short_image_name(original)} is another image now than the one that was"
                    " measured with: the run cannot be gone on with, only done again"
                )

    def _name(self, original: str) -> str:
        known = {wanted: private for private, wanted in self._held.items()}
        private = known.get(original) or \
            image_fullname(username(), f"run-{self._run}-{len(self._held) + 1}")
        if private not in layers_of([private]):
            name = short_image_name(private)
            if image_user(original) == username():
                LINK.call(
                    "cs.images.duplicate", image=short_image_name(original), new_name=name
                )
            else:
                link = f"walt:{original.removesuffix(':latest')}"
                LINK.call(
                    "cs.images.clone", link=link, name=name, force=False, hint="",
                    credentials=stored(["walt"]),
                )
        self._held[private] = original
        return short_image_name(private)

    def original(self, fullname: str) -> str:
        """Return the name that the image of a node has outside of this run."""
        return self._held.get(fullname, fullname)

    # -- settings ----------------------------------------------------------------

    def keep(self, nodes: Collection[str], wanted: Collection[str]) -> None:
        """Note what these settings of nodes are now, unless that was noted before. Raises Failure.
        """
        for node in nodes:
            groups = LINK.json(
                "cs.devices.config", "groups", [{"settings": {}}], devices=node, nodes_only=True
            )
            values = {name: value for group in groups for name, value in group["settings"].items()}
            before = self._before.setdefault(node, {})
            for name in wanted:
                if name in values:
                    before.setdefault(name, text_of(values[name]))

    # -- at the end --------------------------------------------------------------

    def release(self, booting: Mapping[str, str], ours: Collection[str]) -> bool:
        """Give all back; return whether nothing is owed any more. Tells what fails.

        `booting` has the full names of the images of the nodes that are there; those that are
        not `ours` are left alone. An image whose former name is another one now keeps the name
        of the run: nodes boot it.
        """
        owed = False
        for node, settings in list(self._before.items()):
            words = [f"{name}={value}" for name, value in settings.items()]
            if node not in booting:
                self._tell(f"{node} was removed: its settings are nobody's any more")
                del self._before[node]
            elif node not in ours:
                self._tell(f"settings of {node} are as the run had them: it is not yours now")
                owed = True
            elif self._done("settings", "cs.devices.set_config", devices=node, settings=words,
                            nodes_only=True):
                del self._before[node]
            else:
                owed = True
        try:
            there = layers_of([*self._held, *self._held.values()]) if self._held else {}
        except (Failure, OSError) as error:
            self._tell(f"images are still held: {in_words(error)}")
            return False
        for private, original in list(self._held.items()):
            nodes = sorted(node for node, image in booting.items() if image == private)
            name = short_image_name(private)
            if private not in there:
                del self._held[private]
            elif original not in there:
                self._tell(f"{short_image_name(original)} was removed: it is {name} now")
            elif there[private]["id"] != there[original]["id"]:
                self._tell(
                    f"{short_image_name(original)} is another image now; what this run used is"
                    f" {name}"
                )
            elif theirs := [node for node in nodes if node not in ours]:
                self._tell(f"{name} stays: {', '.join(theirs)} boots it, and is not yours now")
                owed = True
            elif self._all_boot(nodes, original) and \
                    self._done("images", "cs.images.remove", image=name):
                del self._held[private]
            else:
                owed = True
        return not owed

    def _all_boot(self, nodes: Collection[str], original: str) -> bool:
        """Give nodes the name back that their image had; each by itself, for one may be refused.
        """
        image = DEFAULT if image_user(original) == PLATFORM_USER else short_image_name(original)
        return all([
            self._done("images", "cs.nodes.set_image", nodes=node, image=image) for node in nodes
        ])

    def _done(self, what: str, call: str, **arguments: Any) -> bool:
        try:
            LINK.call(call, **arguments)
        except Refused as refused:
            self._tell(f"{what}: {refused}")
            return False
        except (Failure, OSError) as error:
            self._tell(f"{what} are as the run had them: {in_words(error)}")
            return False
        return True
