"""Put boot loaders and fall-back files in place (spec node-protocols §3.2, §3.5)."""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.logger import Logger

from walt.common.files import write_if_changed

_log = Logger()

PACKAGE = Path("/usr/lib/ipxe")  # of Debian's package ipxe
# Both use the driver that the firmware has for its card. Names are those that dhcpd tells.
LOADERS = {"walt-x86-undionly.kpxe": "undionly.kpxe", "walt-x86-64-snponly.efi": "snponly.efi"}
SCRIPT = Path(__file__).with_name("walt.ipxe")


def install_loaders(state: Path, package: Path = PACKAGE) -> None:
    """Refresh `pxe/`, make sure of `tftp-static/`, drop the obsolete `tftp-standby/`.

    A missing iPXE package is a warning: only physical PCs need it.
    """
    pxe = state / "pxe"
    pxe.mkdir(parents=True, exist_ok=True)
    write_if_changed(pxe / "walt.ipxe", SCRIPT.read_bytes())
    for name, source in LOADERS.items():
        try:
            write_if_changed(pxe / name, (package / source).read_bytes())
        except FileNotFoundError:
            _log.warn(
                "PCs cannot boot: {path} is missing, install package ipxe",
                path=str(package / source),
            )
    (state / "tftp-static").mkdir(exist_ok=True)
    standby = state / "tftp-standby"
    if standby.is_dir() and not standby.is_symlink():
        shutil.rmtree(standby)
