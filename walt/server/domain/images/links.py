"""Clonable image links (spec user-surface §1.4): `<location>:<user>/<name>[:<tag>]`."""

from __future__ import annotations
from typing import NamedTuple

import re
from collections.abc import Collection

from walt.common.errors import Invalid
from walt.common.names import image_fullname, short_image_name

LOCAL = "walt"
DAEMON = "docker"
HUB = "hub"
MAX_LINK = 400

# What registries accept (OCI distribution specification, "name" and "reference").
_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LINK = re.compile(
    rf"(?P<location>[a-z0-9-]+):(?P<user>{_WORD})/(?P<name>{_WORD}(?:/{_WORD})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
)


class Link(NamedTuple):
    """An image somewhere: at `location`, with a remote full name `user/name:tag`."""

    location: str
    user: str
    name: str
    tag: str = "latest"

    @property
    def fullname(self) -> str:
        """Its name where it is."""
        return f"{self.user}/{self.name}:{self.tag}"

    def __str__(self) -> str:
        return f"{self.location}:{self.user}/{short_image_name(self.fullname)}"


def parse_link(text: str, locations: Collection[str]) -> Link:
    """Return the link in a text. Raises Invalid, with the accepted form."""
    match = _LINK.fullmatch(text) if len(text) <= MAX_LINK else None
    if match is None or match["location"] not in locations:
        raise Invalid(
            f"{text[:100]!r} is not a link to an image: write"
            " <location>:<user>/<image-name>[:<tag>], where <location> is one of "
            + ", ".join(sorted(locations))
        )
    return Link(match["location"], match["user"], match["name"], match["tag"] or "latest")


def local_name(link: Link) -> str:
    """Return the name that a copy gets in a working set, unless the user gives another."""
    tag = "" if link.tag == "latest" else f":{link.tag}"
    return re.sub(r"[^a-z0-9:]+", "-", f"{link.name}{tag}".lower()).strip("-")


def link_to(location: str, fullname: str) -> str:
    """Return the link to an image, `:latest` left out."""
    user, _, name = fullname.partition("/")
    return f"{location}:{user}/{short_image_name(image_fullname(user, name))}"
