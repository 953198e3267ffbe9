"""Who exports what nodes mount: the kernel, or nfs-ganesha."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def usable(
    proc: Path = Path("/proc"), which: Callable[[str], str | None] = shutil.which
) -> bool:
    """Tell whether this kernel has an NFS server that exportfs can command."""
    known = (proc / "fs" / "nfsd").is_dir() or "nfsd" in (proc / "filesystems").read_text()
    return known and which("exportfs") is not None


def chosen(wish: str, *, isolated: bool) -> bool:
    """Tell whether the kernel exports, for a value of `services.nfs`; else ganesha does.

    The kernel's server is that of the machine's own network: an `isolated` platform, which
    lives in another one, would not reach it.
    """
    return wish == "kernel" or (wish == "auto" and not isolated and usable())
