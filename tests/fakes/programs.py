"""A machine whose packages, accounts and units are kept in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from zope.interface import implementer

from walt.server.tools.setup.debian import CLASHING
from walt.server.tools.setup.machine import Done, IPrograms


class Cut(BaseException):
    """The set-up is killed here."""


@implementer(IPrograms)
class FakePrograms:
    """Answers as dpkg, apt-get, getent, useradd, groupadd, exportfs, systemctl and journalctl do.

    `cut_at` is the number of the call before which the caller is killed; packages enable the
    units that they bring. `root` is where unit files are.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packages: set[str] = set()
        self.known = {"passwd": {"root"}, "group": {"root"}}
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        self.started = 0  # when the server was, epoch seconds
        self.calls: list[tuple[str, ...]] = []
        self.cut_at: int | None = None
        self.broken: dict[str, str] = {}  # how what fails begins, and what it says
        self.unfinished = ""  # what dpkg says of packages that are not wholly installed
        self.held: list[str] = []  # packages that are kept back
        self.sources = True  # whether those of the site have all packages
        self.mirror = ""  # what has all packages, once it is a source
        self.nowhere: set[str] = set()  # packages that no source has
        self.former = False  # whether an older WalT has a database here
        self.former_size = 0  # bytes of it
        self.policies: list[bool] = []  # whether services were kept from starting, at each apt-get

    def call(self, argv: Sequence[str], more_env: Mapping[str, str]) -> Done:
        """See IPrograms."""
        if self.cut_at is not None and len(self.calls) >= self.cut_at:
            raise Cut
        self.calls.append(tuple(argv))
        for words, told in self.broken.items():
            if " ".join(argv).startswith(words):
                return Done(1, told)
        answer = getattr(self, "_" + argv[0].replace("-", "_"))(*argv[1:])
        return answer if isinstance(answer, Done) else Done(0 if answer else 1, "")

    def _dpkg_query(self, *words: str) -> Done:
        names = [one for one in words if not one.startswith("-")]
        there = [one for one in names if one in self.packages]
        return Done(0 if there == names else 1, "".join(f"{one} installed\n" for one in there))

    def _dpkg(self, *words: str) -> Done:
        return Done(0, self.unfinished if words == ("--audit",) else "")

    def _apt_mark(self, *words: str) -> Done:
        return Done(0, "".join(f"{one}\n" for one in self.held))

    def _apt_cache(self, action: str, *names: str) -> Done:
        ours = self.root / "etc/apt/sources.list.d/walt.sources"
        here = ours.exists() and self.mirror in ours.read_text()
        found = "1" if here or self.sources else "(none)"
        return Done(0, "".join(
            f"{one}:\n  Installed: (none)\n  Candidate: {found}\n"
            for one in names if one not in self.nowhere
        ))

    def _apt_get(self, action: str, *words: str) -> bool:
        if action == "--simulate":
            return not self.unfinished
        self.policies.append((self.root / "usr/sbin/policy-rc.d").exists())
        if action == "install":
            self.packages |= {
                one for one in words if not one.startswith(("-", "Dpkg::", "DPkg::"))
            }
            self.enabled |= {*CLASHING[:6], "postgresql.service"}
        return True

    def _psql(self, *words: str) -> Done:
        return Done(0 if self.former else 1, f"{self.former_size}\n")

    def _pg_dump(self, *words: str) -> bool:
        (file,) = [one.partition("=")[2] for one in words if one.startswith("--file=")]
        Path(file).write_text("the former database")
        return True

    def _getent(self, kind: str, name: str) -> bool:
        return name in self.known[kind]

    def _useradd(self, *words: str) -> bool:
        self.known["passwd"].add(words[-1])
        return True

    def _groupadd(self, *words: str) -> bool:
        self.known["group"].add(words[-1])
        return True

    def _exportfs(self, *words: str) -> bool:
        return "nfs-kernel-server" in self.packages

    def _journalctl(self, *words: str) -> Done:
        return Done(0, "walt-server: the reason\n")

    def _systemctl(self, *words: str) -> Done | bool:
        action, *units = [one for one in words if not one.startswith("-")] or [""]
        unit = units[0] if units else ""
        if action in ("is-enabled", "is-active"):
            return unit in (self.enabled if action == "is-enabled" else self.active)
        if action == "enable":
            self.enabled.add(unit)
        elif action == "disable":
            self.enabled -= set(units)
        elif action in ("start", "restart"):
            self.active.add(unit)
            self.started = 1 << 40
        elif action == "stop":
            self.active -= set(units)
        elif action == "show":
            return Done(0, f"@{self.started}\n")
        return True
