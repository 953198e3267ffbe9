"""Images that another platform had, by their ids: here, in registries, then in the archive.

A registry does not tell ids: an image of the same name is fetched under a private one, compared,
and removed again if it is another image, or if fetching is stopped. Nodes are not touched.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from walt.client.credentials import stored
from walt.client.errors import Failure, Refused
from walt.client.experiment.holding import layers_of
from walt.client.scripting.link import LINK
from walt.client.settings import username
from walt.common.names import image_fullname, short_image_name

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import Any

MOST = 3  # images of registries that are fetched for one that is looked for
LOCAL = "walt:"
PRIVATE = "fetch-"  # how the names of images begin that nobody has compared yet
_FOUND = {"name": str, "clonable_link": str, "link": str}


def lacking(
    manifest: Mapping[str, Any], roles: Iterable[str], there: Iterable[str]
) -> dict[str, str]:
    """Return the ids of images that the nodes of roles booted and that are not `there`.

    Values are their short names.
    """
    known = set(there)
    found = {}
    for role in roles:
        for node in manifest["roles"].get(role, ()):
            fullname = manifest["nodes"].get(node, {}).get("image", "")
            image_id = manifest["images"].get(fullname)
            if image_id is not None and image_id not in known:
                found[image_id] = short_image_name(fullname)
    return found


def targets(wanted: Mapping[str, str], own: Iterable[str]) -> dict[str, str]:
    """Return the names that images would get in the caller's set, by their ids.

    `own` are the names that the caller has: none of them is taken by another image.
    """
    taken, found = set(own), {}
    for image_id, name in sorted(wanted.items()):
        target = name if name not in taken else f"{name.partition(':')[0]}-{image_id[:8]}"
        if target not in taken:
            taken.add(target)
            found[image_id] = target
    return found


def fetch(
    wanted: Mapping[str, str], others: Mapping[str, str], own: Iterable[str],
    kept: Collection[str], load: Callable[[Mapping[str, str]], object],
    tell: Callable[[str], object],
) -> dict[str, str]:
    """Get images into the caller's set, of ids whose names are told; return ids by new name.

    `others` are the full names of images of other users by id, `own` the names that the caller
    has; the archive has those that it has `kept`, and `load` brings them, ids by names: all at
    once, for that sends the archive. What is not found is left out. Raises Failure.
    """
    found = {}
    archived = {}
    for image_id, target in targets(wanted, own).items():
        try:
            links = [LOCAL + others[image_id].removesuffix(":latest")] if image_id in others else \
                _links(wanted[image_id])
        except Refused:
            if image_id not in kept:
                raise
            links = []  # no registry answers: the archive will do
        for link in links[:MOST]:
            if _fetched(partial(_clone, link), target, image_id):
                tell(f"{target}: cloned from {link}")
                found[target] = image_id
                break
        else:
            if image_id in kept:
                archived[image_id] = target
    for image_id, target in _loaded(load, archived):
        tell(f"{target}: out of the archive")
        found[target] = image_id
    return found


def _links(name: str) -> list[str]:
    """Return where registries have images of a name."""
    labels = [row["label"] for row in LINK.json("cs.registries.list", "rows", [{"label": str}])]
    rows = LINK.json(
        "cs.images.search", "rows", [_FOUND], keyword=name, credentials=stored(labels)
    )
    return [
        row["link"] for row in rows
        if row["name"] == name and row["clonable_link"] == row["link"]
        and not row["link"].startswith(LOCAL)
    ]


def _clone(link: str, name: str) -> bool:
    try:
        LINK.call(
            "cs.images.clone", link=link, name=name, force=False, hint="",
            credentials=stored([link.partition(":")[0]]),
        )
    except Refused:
        return False
    return True


def _loaded(
    load: Callable[[Mapping[str, str]], object], archived: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Load images, names by their ids; yield those that are there then, by id and name."""
    privates = {f"{PRIVATE}{image_id[:12]}": image_id for image_id in archived}
    try:
        missing = {
            private: image_id for private, image_id in privates.items()
            if _id_of(private) != image_id  # another one: which one that was killed has left
        }
        for private in missing:
            _remove(private)
        if missing:
            load(missing)
        for private, image_id in privates.items():
            if _id_of(private) == image_id:
                LINK.call("cs.images.rename", image=private, new_name=archived[image_id])
                yield image_id, archived[image_id]
    finally:
        for private in privates:
            with suppress(Failure, OSError):  # what stopped us is told
                _remove(private)


def _fetched(get: Callable[[str], bool], name: str, image_id: str) -> bool:
    """Get an image; tell whether it has the id. It gets its name when that is known."""
    private = f"{PRIVATE}{image_id[:12]}"
    try:
        if _id_of(private) != image_id:  # which one that was killed has left
            _remove(private)
            if not get(private):
                return False
        if _id_of(private) != image_id:
            return False
        LINK.call("cs.images.rename", image=private, new_name=name)
        return True
    finally:
        with suppress(Failure, OSError):  # what stopped us is told
            _remove(private)


def _id_of(name: str) -> str | None:
    fullname = image_fullname(username(), name)
    found: str | None = layers_of([fullname]).get(fullname, {}).get("id")
    return found


def _remove(name: str) -> None:
    if _id_of(name) is not None:
        LINK.call("cs.images.remove", image=name)
