"""Put boot loaders and fall-back files in place (spec node-protocols §3.2, §3.5)."""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.logger import Logger

from walt.common.files import write_if_changed

_log = Logger()

UNDIONLY = Path("/usr/lib/ipxe/undionly.kpxe")  # Debian package ipxe
SCRIPT = Path(__file__).with_name("walt.ipxe")


def install_loaders(state: Path, undionly: Path = UNDIONLY) -> None:
    """Refresh `pxe/`, make sure of `tftp-static/`, drop the obsolete `tftp-standby/`.

    A missing iPXE package is a warning: only physical PCs need it.
    """
    pxe = state / "pxe"
    pxe.mkdir(parents=True, exist_ok=True)
    write_if_changed(pxe / "walt.ipxe", SCRIPT.read_bytes())
    try:
        write_if_changed(pxe / "walt-x86-undionly.kpxe", undionly.read_bytes())
    except FileNotFoundError:
        _log.warn("PCs cannot boot: {path} is missing, install package ipxe", path=str(undionly))
    (state / "tftp-static").mkdir(exist_ok=True)
    standby = state / "tftp-standby"
    if standby.is_dir() and not standby.is_symlink():
        shutil.rmtree(standby)
