"""Rules of file transfers, the same for nodes and images (spec user-surface §1.13)."""

from __future__ import annotations

import posixpath
import re

from walt.common.errors import Conflict, Invalid, NotFound

FILE = "f"
DIRECTORY = "d"
OTHER = "o"  # a device, a socket…
MISSING = "-"
KINDS = frozenset((FILE, DIRECTORY, OTHER, MISSING))

UPLOAD = "upload"
DOWNLOAD = "download"
TO_BOOTED_IMAGE = "to-booted-image"

BOOTED_IMAGE = "booted-image"
HOME = "/root"  # where relative remote paths start
MAX_PATH = 4096

USAGE = {
    "node": (
        "Usage: walt node cp <local-path> <node>:<path>\n"
        "       walt node cp <node>:<path> <local-path>\n"
        "       walt node cp <node>:<path> booted-image"
    ),
    "image": (
        "Usage: walt image cp <local-path> <image>:<path>\n"
        "       walt image cp <image>:<path> <local-path>"
    ),
}
# What is remote, and the path there: names hold no slash, and those of images may have a tag.
_REMOTE = {
    "node": re.compile(r"(?s)([^/:]*):(.*)"),
    "image": re.compile(r"(?s)([^/:]*(?::[^/:]+)?):(.*)"),
}


class Operand:
    """One side of a transfer: `entity` is a node or image name, None for the client.

    `path` has no trailing slash; that of a remote operand is absolute. `slash` tells whether
    there was one: a directory is meant.
    """

    def __init__(self, entity: str | None, path: str, *, slash: bool = False) -> None:
        self.entity = entity
        self.path = path
        self.slash = slash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operand) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"Operand({self.entity!r}, {self.path!r})"


class Transfer:
    """What goes where; `direction` is UPLOAD, DOWNLOAD or TO_BOOTED_IMAGE.

    The target of TO_BOOTED_IMAGE is the same path in the image of the source's node.
    """

    def __init__(self, direction: str, source: Operand, target: Operand) -> None:
        self.direction = direction
        self.source = source
        self.target = target

    @property
    def entity(self) -> str:
        """The node or image concerned."""
        return self.source.entity or self.target.entity or ""


class Place:
    """Where the data goes: `name` in `directory`; without name, merged into `directory`."""

    def __init__(self, directory: str, name: str | None) -> None:
        self.directory = directory
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"Place({self.directory!r}, {self.name!r})"

    @property
    def path(self) -> str:
        """The path that receives the file or the content of the directory."""
        return self.directory if self.name is None else posixpath.join(self.directory, self.name)


def split_operand(kind: str, text: str) -> tuple[str, str] | None:
    """Return the node or image (`kind`) that an operand names, and the path there.

    None for a path of the client: one without colon, or with a slash before it, as in `./12:30`.
    """
    found = _REMOTE[kind].fullmatch(text)
    return (found[1], found[2]) if found is not None else None


def parse_operand(kind: str, text: str) -> Operand:
    """Return an operand of `walt <kind> cp`.

    Raises Invalid for a path that is too long or holds a NUL.
    """
    if len(text) > MAX_PATH or "\0" in text:
        raise Invalid("a path has at most 4096 characters, and no NUL")
    split = split_operand(kind, text)
    if split is None:
        return Operand(None, strip_slash(text), slash=text.endswith("/"))
    entity, path = split
    return Operand(entity, strip_slash(posixpath.join(HOME, path)), slash=path.endswith("/"))


def strip_slash(path: str) -> str:
    """Return a path without slashes at its end; the root stays (Q-18)."""
    return path.rstrip("/") or path[:1]


def parse_transfer(kind: str, source: str, target: str) -> Transfer:
    """Return the transfer that two operands of `walt <kind> cp` describe.

    Raises Invalid with the usage text for a pair that makes no sense.
    """
    origin = parse_operand(kind, source)
    if kind == "node" and target == BOOTED_IMAGE and origin.entity:
        return Transfer(TO_BOOTED_IMAGE, origin, Operand(origin.entity, origin.path))
    end = parse_operand(kind, target)
    one_remote = (origin.entity is None) != (end.entity is None)
    if not one_remote or "" in (origin.entity, end.entity, origin.path, end.path):
        raise Invalid(USAGE[kind])
    return Transfer(UPLOAD if origin.entity is None else DOWNLOAD, origin, end)


def resolve(
    source: str, source_kind: str, target: str, target_kind: str, parent_kind: str, *,
    slash: bool = False, in_place: bool = False,
) -> Place:
    """Return where a source goes; kinds are FILE, DIRECTORY, OTHER or MISSING.

    `parent_kind` is the kind of the directory of `target`. `slash`: it was written with one at
    its end, so that it must be a directory. `in_place`: the target
    is the same path in another file system (booted-image), an existing directory
    is merged. Raises NotFound, Conflict or Invalid.
    """
    if source_kind == MISSING:
        raise NotFound(f"there is no file or directory {source!r}")
    if source_kind == OTHER:
        raise Invalid(f"{source!r} is neither a regular file nor a directory")
    if slash and source_kind == FILE and target_kind != DIRECTORY:
        raise NotFound(f"there is no directory {target!r}")
    directory, name = posixpath.split(target)
    inside = posixpath.basename(source)
    if target_kind == MISSING:
        if parent_kind != DIRECTORY or name in (".", ".."):
            raise NotFound(f"there is no {target!r}, nor a directory to put it in")
        return Place(directory or ".", name)
    if target_kind == FILE:
        if source_kind == DIRECTORY:
            raise Conflict(f"{target!r} is a file: the directory {source!r} cannot replace it")
        return Place(directory or ".", name)
    if target_kind != DIRECTORY:
        raise Invalid(f"{target!r} is neither a regular file nor a directory")
    if source_kind == DIRECTORY and (in_place or inside in ("", ".", "..")):
        return Place(target, None)
    return Place(target, inside)
