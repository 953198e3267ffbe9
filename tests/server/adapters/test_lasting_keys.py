"""Keys are made once: each has its name only when the disk has it."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import which
from typing import Any

from twisted.trial.unittest import TestCase

from walt.client import enrolment
from walt.common import files
from walt.server.adapters.ssh import keys
from walt.server.adapters.tls.boot_signatures import BootSignatures
from walt.server.adapters.vpn.authority import SshAuthority
from walt.server.adapters.vpn.sshd import ensure_host_keys
from walt.server.runtime.process import ProcessRunner


class LastingKeysTests(TestCase):
    async def test_programs(self) -> None:
        """Whatever program makes them: all that is there at the end was on the disk before."""
        from twisted.internet import reactor

        real, lasting, named = ProcessRunner(reactor), set[int](), set[Path]()

        class Noting:
            async def run(self, argv: Any, **how: Any) -> Any:
                if argv[0] == "sync":
                    lasting.add(os.stat(argv[-1]).st_ino)
                    if os.path.isdir(argv[-1]):
                        named.update(Path(argv[-1]).iterdir())
                return await real.run(argv, **how)

        runner: Any = Noting()
        clock: Any = reactor
        place = Path(self.mktemp())
        place.mkdir()
        await keys.ensure_node_key(runner, place / "state")
        if which("dropbearconvert"):
            await keys.ensure_host_keys(runner, place / "nodes")
        await SshAuthority(runner, place / "vpn").prepare()
        await ensure_host_keys(runner, place / "sshd")
        await BootSignatures(clock, runner, place / "boot", lambda: 0.0).public_key()
        found = {
            path.relative_to(place).as_posix() for path in place.rglob("*")
            if path.is_file() and path.stat().st_ino not in lasting
        }
        # The authority's public half is written anew at each start, where it differs.
        self.assertEqual({name for name in found if not name.startswith("vpn/")}, set())
        self.assertEqual([name for name in found if not name.endswith(".pub")], [])
        private = {path for path in place.rglob("*") if path.is_file()
                   and path.stat().st_ino in lasting}
        self.assertEqual(private - named, set())

    def test_enrolment(self) -> None:
        """The files of an enrolment are on the disk before the earlier ones are replaced."""
        deeds: list[str] = []
        for name in ("fsync", "rename"):
            real = getattr(os, name)
            self.patch(files.os, name, lambda *words, name=name, real=real: (
                deeds.append(name), real(*words)
            ))
        place = Path(self.mktemp())
        place.mkdir()
        enrolment._write(str(place), "key.pem", "x")
        self.assertEqual(deeds[:2], ["fsync", "rename"])
        self.assertEqual((place / "key.pem").stat().st_mode & 0o777, 0o600)
