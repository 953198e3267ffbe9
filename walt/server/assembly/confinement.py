"""Debian's AppArmor profiles of dhcpd, named and dhclient, which know Debian's own files alone.

What the server's own daemons read and write lies below its directories: the profiles are told
so in their files for the site, /etc/apparmor.d/local (apparmor.d(5)), a block for each state
directory. Blocking code: for tools, and for the start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from walt.common.errors import CommandFailed, Invalid, in_words
from walt.common.files import write_atomic
from walt.server.adapters.volumes.loop import run
from walt.server.config.model import Paths

PROFILES = Path("/etc/apparmor.d")
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
DAEMONS = ("dhcpd", "named")
_PLAIN = re.compile(r"(?:/[\w.@+-]+)+")  # nothing that is a pattern or a quote in a profile


def blocks(paths: Paths) -> Mapping[str, str]:
    """Return what the file of each profile must have, by the profile's name.

    Raises Invalid for directories whose names a profile cannot have plainly.
    """
    for path in (paths.state, paths.runtime):
        if not _PLAIN.fullmatch(str(path)):
            raise Invalid(
                f"{path} cannot be named in a profile of AppArmor: choose a directory whose name"
                " has letters, digits and . _ @ + - alone"
            )
    rules: dict[str, tuple[str, ...]] = {
        f"usr.sbin.{name}": (
            f"{paths.service(name)}/ r,", f"{paths.service(name)}/** rwlk,",
            f"{paths.service_runtime(name)}/** rwlk,",
        )
        for name in DAEMONS
    }
    # The client of a network whose address comes by DHCP: without its pid file it is not ended.
    rules["sbin.dhclient"] = (f"{paths.state}/.*.dhclient.* lrw,",)
    return {
        name: "".join(f"{line}\n" for line in (
            f"# WalT server of {paths.state}: its configuration and state", *lines,
            f"# end of {paths.state}",
        ))
        for name, lines in rules.items()
    }


def with_block(text: str, block: str) -> str:
    """Return the text of a file with a block, in the place of the one of the same directory."""
    first, *_, last = block.splitlines(keepends=True)
    before, found, rest = text.partition(first)
    if found:
        _, _, after = rest.partition(last)
        return before + block + after
    return text + ("\n" if text and not text.endswith("\n") else "") + block


def without_block(text: str, block: str) -> str:
    """Return the text of a file without the block of a directory."""
    first, *_, last = block.splitlines(keepends=True)
    before, found, rest = text.partition(first)
    return before + rest.partition(last)[2] if found else text


def missing(paths: Paths, profiles: Path = PROFILES) -> Mapping[Path, str]:
    """Return the texts of the files that must be written first, by path. Raises OSError."""
    found = {}
    for name, block in blocks(paths).items():
        if (profiles / name).exists():
            file = profiles / "local" / name
            text = file.read_text(errors="surrogateescape") if file.exists() else ""
            if block not in text:
                found[file] = with_block(text, block)
    return found


def is_enforced(enabled: Path = ENABLED) -> bool:
    """Tell whether this kernel confines programs by AppArmor."""
    try:
        return enabled.read_text().strip() == "Y"
    except OSError:
        return False


def allow(paths: Paths, profiles: Path = PROFILES, *, enforced: bool | None = None) -> list[Path]:
    """Write what is missing and have the kernel read it; return the files that were written.

    Raises CommandFailed, OSError.
    """
    written = []
    for file, text in missing(paths, profiles).items():
        file.parent.mkdir(exist_ok=True)
        former = file.read_bytes() if file.exists() else None
        write_atomic(file, text.encode(errors="surrogateescape"))
        if is_enforced() if enforced is None else enforced:
            try:
                run(["apparmor_parser", "--replace", str(profiles / file.name)])
            except CommandFailed:
                # The next call tries again.
                file.unlink() if former is None else write_atomic(file, former)
                raise
        written.append(file)
    return written


def withdraw(
    paths: Paths, profiles: Path = PROFILES, *, enforced: bool | None = None
) -> None:
    """Take back what `allow` wrote. Raises CommandFailed, OSError."""
    for name, block in blocks(paths).items():
        file = profiles / "local" / name
        text = file.read_text(errors="surrogateescape") if file.exists() else ""
        rest = without_block(text, block)
        if rest != text:
            write_atomic(file, rest.encode(errors="surrogateescape"))
            if is_enforced() if enforced is None else enforced:
                run(["apparmor_parser", "--replace", str(profiles / name)])


def problems(paths: Paths) -> list[str]:
    """Return what keeps daemons from their files, with what to do."""
    try:
        wanted = missing(paths) if is_enforced() else {}
    except (Invalid, OSError) as error:
        return [f"AppArmor: {in_words(error)}"]
    if not wanted:
        return []
    return [
        "AppArmor keeps daemons from the server's directories; run: walt-server-apparmor"
        " (--config FILE names another server.conf)"
    ]
