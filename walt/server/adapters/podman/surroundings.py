"""What keeps programs of builds and of image shells from the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple

OUTSIDE = Path(__file__).with_name("outside.py")  # needs the standard library alone
CHROOT_WARNING = (
    "Warning: this server runs RUN instructions in a mere chroot (images.build-isolation in its"
    " server.conf): they can reach its files."
)


class Surroundings(NamedTuple):
    """How RUN instructions are kept from the server.

    `isolation` is `oci`, a container, or `chroot`, which is none; `closed` networks are out
    of their reach, as the server itself is, but for `opened` ones.
    """

    isolation: str = "oci"
    closed: tuple[IPv4Network, ...] = ()
    opened: tuple[IPv4Network | IPv6Network, ...] = ()

    @property
    def warning(self) -> str | None:
        """What people are told before each build."""
        return CHROOT_WARNING if self.isolation == "chroot" else None

    def options(self) -> list[str]:
        """Return the options of `podman build`."""
        options = ["--isolation", self.isolation, "--network", "host"]  # that of `around`
        if self.isolation == "chroot":
            # The classic way out of a chroot, and disks.
            options += ["--cap-drop", "CAP_SYS_CHROOT", "--cap-drop", "CAP_MKNOD"]
        return options

    def around(self, argv: Sequence[str]) -> list[str]:
        """Return the vector that runs a program in a network of its own."""
        words = [word for network in self.closed for word in ("--closed", str(network))]
        words += [
            word for network in self.opened if isinstance(network, IPv4Network)
            for word in ("--open", str(network))
        ]
        return [sys.executable, "-I", str(OUTSIDE), *words, "--", *argv]
