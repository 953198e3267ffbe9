"""Texts that ganesha reads: ganesha-config(8), ganesha-core-config(8), ganesha-export-config(8)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from walt.server.adapters.nfs.exports import EXPORTS, Export

_VERSION = re.compile(r"NFS-Ganesha Release = V(\d+)")
# Since this version it asks the kernel for something that containers refuse, and ends
# without this setting; older ones do not know it.
IO_FLUSHER_SINCE = 6
ALL = "EXPORT(Protocols=4)"  # an expression that all exports of a file match


def taken(count: int) -> str:
    """Return the answer to UpdateExport when so many exports were taken, and none was not.

    It is in ganesha's sources, src/support/export_mgr.c.
    """
    return f"{count} exports updated"


def major_version(text: str) -> int:
    """Return the major version in what `ganesha.nfsd -v` prints, 0 if it is not there."""
    found = _VERSION.search(text)
    return int(found.group(1)) if found else 0


def core(address: str, recovery: Path, version: int) -> str:
    """Return what is not an export.

    `address` is the server's in walt-net, `recovery` the directory of its client
    records: in the state directory, since servers must not share one, and short
    times, since nobody should wait 90 s after a crash. `version` is ganesha's major one.
    Directories are not cached: a link that was replaced would stay a stale handle (6.5), or
    lead to an old image (4.3); nodes cache what they look up.
    """
    lines = [
        "NFS_CORE_PARAM {",
        "  Protocols = 4;",
        "  Enable_NLM = false;",
        "  Enable_RQUOTA = false;",
        f"  Bind_addr = {address};",
        "  NFS_Port = 2049;",
    ]
    if version >= IO_FLUSHER_SINCE:
        lines.append("  allow_set_io_flusher_fail = true;")
    lines += [
        "}",
        "NFSv4 {",
        "  RecoveryBackend = fs;",
        f"  RecoveryRoot = {_quoted(recovery)};",
        "  Lease_Lifetime = 15;",
        "  Grace_Period = 20;",
        "  Only_Numeric_Owners = true;",
        "}",
        "NFS_KRB5 {",
        "  Active_krb5 = false;",
        "}",
        "EXPORT_DEFAULTS {",
        "  SecType = sys;",
        "  Squash = No_Root_Squash;",
        "  Protocols = 4;",
        "  Transports = TCP;",
        "  Access_Type = None;",
        "}",
        "MDCACHE {",
        "  Dir_Chunk = 0;",
        "}",
        "LOG {",
        "  Default_Log_Level = EVENT;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def export(number: int, exported: Export, pseudo: str | None = None) -> str:
    """Return the block of an export; `pseudo` is its path if not the one of its number.

    An export with a path of its own has links that change: a node that waits for its own
    would not see for 60 s that it is there.
    """
    return "\n".join([
        "EXPORT {",
        "  Protocols = 4;",
        f"  Export_Id = {number};",
        f"  Path = {_quoted(exported.path)};",
        f"  Pseudo = {_quoted(pseudo or f'{EXPORTS}/{number}')};",
        f"  Filesystem_Id = {exported.fsid};",
        *(["  Attr_Expiration_Time = 0;"] if pseudo else []),
        "  FSAL { Name = VFS; }",
        "  CLIENT {",
        f"    Clients = {exported.clients};",
        f"    Access_Type = {'RW' if exported.writable else 'RO'};",
        "  }",
        "}",
    ]) + "\n"


def present(
    exports: Mapping[int, Export]
) -> Iterator[tuple[int, Export]]:
    """Yield those exports, by number, whose trees are there: one that is not keeps all others back.
    """
    there: dict[Path, bool] = {}  # blocks share the trees of images
    for number, exported in exports.items():
        if exported.path not in there:
            there[exported.path] = os.path.isdir(exported.path)
        if there[exported.path]:
            yield number, exported


def record(number: int, exported: Export) -> str:
    """Return the content of the file of an export: its key, for `recorded_key`, and its block."""
    return f"# {exported.key}\n{export(number, exported)}"


def recorded_key(lines: Iterable[str]) -> str | None:
    """Return the key in the file of an export, None if that is no such file."""
    first = next(iter(lines), "")
    return first[2:].rstrip("\n") if first.startswith("# ") else None


def _quoted(text: str | Path) -> str:
    value = str(text)
    if any(char in value for char in '"\n\\'):
        raise ValueError(f"a path that ganesha cannot hold: {value!r}")
    return f'"{value}"'
