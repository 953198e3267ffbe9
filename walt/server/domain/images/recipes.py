"""Dockerfiles: whose images their FROM lines name (spec server §5.10)."""

from __future__ import annotations

import re

from walt.common.errors import Invalid

NAMES = ("Dockerfile", "ContainerFile", "Containerfile")
MAX_SIZE = 1 << 20  # bytes
HUB = "docker.io"

_FROM = re.compile(
    r"(?P<head>\s*FROM\s+(?:--\S+\s+)*)(?P<image>[^\s#\\]+)"
    r"(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE,
)

# RUN --mount=type=bind,from=stage,…
_MOUNT = re.compile(r"--mount[=\s]\S*(?:from\s*=|[$\"'\\])", re.IGNORECASE)


def rewrite(text: str, user: str) -> str:
    """Return a recipe whose FROM lines name images in full.

    An image without user part is the caller's, but for `scratch` and stages that
    came before; names of the form `user/image` are those of the platform. Names
    with variables are left alone. Raises Invalid without any FROM line.
    """
    stages: set[str] = set()
    lines, found = [], False
    continued = False
    for line in text.splitlines():
        match = None if continued else _FROM.match(line)
        if match is not None:
            found = True
            image = match["image"]
            if image.lower() not in stages:
                line = match["head"] + full_reference(image, user) + line[match.end("image"):]
            if match["stage"]:
                stages.add(match["stage"].lower())
        continued = line.rstrip().endswith("\\")
        lines.append(line)
    if not found:
        raise Invalid("the recipe has no FROM line")
    return "\n".join(lines) + "\n"


def mounts_elsewhere(text: str) -> bool:
    """Tell whether an instruction mounts something of another stage or image.

    What variables and quotes stand for is not known here: it may be that.
    """
    return bool(_MOUNT.search(re.sub(r"[\\`][ \t]*\r?\n", "", text)))


def full_reference(image: str, user: str) -> str:
    """Return the full reference of an image named in a recipe of a user."""
    if image == "scratch" or "$" in image:
        return image
    first, slash, rest = image.partition("/")
    if not slash:
        return f"{HUB}/{user}/{image}"
    if "." in first or ":" in first or first == "localhost" or "/" in rest:
        return image
    return f"{HUB}/{image}"
