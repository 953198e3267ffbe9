"""The configuration of in.tftpd: a comparable value and its map (spec node-protocols §3.1)."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

# in.tftpd(8), filename remapping. Slashes in front are dropped first, so that
# names with or without them are alike; `..` never reaches the file system.
MAP = r"""ri ^/+
a (^|/)\.\.(/|$)
e undionly
e ^pxe/
r ^boot/rpi-.*\.uboot$ start.uboot
r ^boot/pc-x86-64\.ipxe$ start.ipxe
re ^.*$ nodes/\i/tftp/\0
"""


class TftpConfig(NamedTuple):
    """Where in.tftpd listens and the directory it serves."""

    server: IPv4Address
    root: Path
    port: int = 69
