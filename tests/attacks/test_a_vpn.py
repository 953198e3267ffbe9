"""Somebody with a key of the VPN, or with none, at the door of the platform."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from signal import SIGKILL

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import Program, why_not
from tests.system.processes import processes
from tests.system.vpn_lab import ID, VpnLab
from walt.server.domain.network_services.tunnel import PYTHON

MOST_MEMORY = 64 << 20  # bytes of an end of a tunnel
FLOOD = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for _ in range(50000):
    one.sendto(bytes(1400), (sys.argv[1], 9))
"""
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


class VpnAttackTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def said(self, key: Path, *words: str, before: tuple[str, ...] = (),
                   user: str = "walt-vpn") -> tuple[int, bytes]:
        """Return status and output of ssh from outside."""
        done = await self.lab.run(
            self.lab.outside, "timeout", "20", *self.lab.ssh(key, *before, user=user), *words,
            check=False,
        )
        return done.status, done.stdout + done.stderr

    async def signed(self, *options: str, authority: Path | None = None) -> Path:
        """Return a key with a certificate that somebody made."""
        run, base = self.lab.platform.runner.run, self.lab.platform.base
        key = base / f"evil{len(list(base.glob('evil*')))}"
        await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
        await run(["ssh-keygen", "-q", "-s", str(authority or self.authority), *options,
                   f"{key}.pub"])
        return key

    async def test_the_door(self) -> None:
        """Nothing but frames, for nobody but boards."""
        self.lab = lab = VpnLab(self, reactor)
        await lab.start({"/boot/rpi-5-b/boot.img": "image"})
        key, _ = await lab.enrolled()
        # What a thief of the authority's key would need; used to make odd certificates.
        self.authority = lab.platform.state / "vpn-server" / "vpn-ca-key"
        self.assertEqual((await self.said(key, "get-server-hostname"))[0], 0)
        await self._check_keys(key)
        await self._check_commands(key)
        await self._check_processes(key)
        await self._check_frames(key)

    async def _check_keys(self, good: Path) -> None:
        """Other authorities, accounts and times; keys without a certificate; other users."""
        run, base = self.lab.platform.runner.run, self.lab.platform.base
        await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(base / "ca2")])
        bare = base / "bare"
        await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(bare)])
        Path(f"{bare}-cert.pub").write_text("")
        for key in (
            bare,
            await self.signed("-I", ID, "-n", "walt-vpn", authority=base / "ca2"),
            await self.signed("-I", ID, "-n", "root"),
            await self.signed("-I", ID, "-n", "walt-vpn", "-V", "-2h:-1h"),
            await self.signed("-I", ID, "-n", "walt-vpn", "-h"),
        ):
            status, told = await self.said(key, "get-server-hostname")
            self.assertEqual((status, b"walt.example.org" in told), (255, False), told)
        for user in ("root", "walt-dhcp", "nobody", "-x"):
            self.assertEqual((await self.said(good, "get-server-hostname", user=user))[0], 255)
        # An identity that no board has tests an entry point, and opens no tunnel.
        test = await self.signed("-I", "ssh-endpoint-test", "-n", "walt-vpn")
        self.assertEqual((await self.said(test, "get-server-hostname"))[0], 0)
        status, told = await self.said(test)
        self.assertEqual(status, 1)
        self.assertIn(b"belongs to no board", told)

    async def _check_commands(self, key: Path) -> None:
        """No shell, terminal, file, forwarding or variable, whatever the certificate permits."""
        mighty = await self.signed(
            "-I", "ssh-endpoint-test", "-n", "walt-vpn", "-O", "clear",
            "-O", "permit-pty", "-O", "permit-port-forwarding", "-O", "permit-user-rc",
            "-O", "permit-agent-forwarding", "-O", "force-command=id",
        )
        for one in (key, mighty):
            for words in (("id",), ("sh",), ("get-server-hostname; id",), ("$(id)",), ("-x",)):
                told = (await self.said(one, *words))[1]
                self.assertNotIn(b"uid=", told)
            for before in (
                ("-tt",), ("-W", "127.0.0.1:22"), ("-s",), ("-A",),
                ("-o", "SetEnv=LD_PRELOAD=/tmp/evil.so SSH_ORIGINAL_COMMAND=x"),
            ):
                told = (await self.said(one, "id", before=before))[1]
                self.assertNotIn(b"uid=", told)
                self.assertNotIn(b"SSH-2.0", told.replace(b"SSH-2.0-OpenSSH", b"", 0)[:8])
            for forward in (("-R", "0:127.0.0.1:22"), ("-w", "0:0")):
                status, _ = await self.said(
                    one, "get-server-hostname",
                    before=("-o", "ExitOnForwardFailure=yes", *forward),
                )
                self.assertEqual(status, 255, forward)
            program = Program()
            argv = [
                "nsenter", f"--net=/run/netns/{self.lab.outside}", "--",
                *self.lab.ssh(one, "-N", "-L", "127.0.0.1:7777:127.0.0.1:12345"),
            ]
            transport = self.lab.platform.reactor.spawnProcess(program, argv[0], argv, os.environ)
            await self.lab.platform.sleep(1.5)
            reached = await self.lab.run(
                self.lab.outside, "curl", "--silent", "--max-time", "5", "http://127.0.0.1:7777/",
                check=False,
            )
            self.assertNotEqual(reached.status, 0)
            if transport.pid:
                transport.signalProcess("KILL")
            await program.ended

    async def _check_processes(self, key: Path) -> None:
        """sshd and its sessions have an account and no right; the socket is theirs."""
        rows = await self.lab.platform.services()
        status = Path(f"/proc/{rows['sshd']['pid']}/status").read_text()
        uid = str(shutil._get_uid("walt-vpn"))  # type: ignore[attr-defined]
        self.assertEqual(re.findall(r"^Uid:\s+(\d+)\s+(\d+)", status, re.M), [(uid, uid)])
        self.assertEqual(re.findall(r"^Cap(?:Eff|Prm|Bnd|Amb):\s+(\w+)", status, re.M)[:2],
                         ["0" * 16] * 2)
        self.assertIn("NoNewPrivs:\t1", status)
        for account in ("nobody", "walt-dhcp"):
            tried = await self.lab.platform.runner.run([
                "setpriv", "--reuid", account, "--clear-groups", "python3", "-c", CONNECT,
                str(self.lab.platform.runtime / "vpn.sock"),
            ], check=False)
            self.assertIn(b"PermissionError", tried.stderr)
        directory = self.lab.platform.state / "vpn-server"
        tried = await self.lab.platform.runner.run([
            "setpriv", "--reuid", "walt-vpn", "--regid", "walt-vpn", "--clear-groups", "sh", "-c",
            'cat "$0/vpn-ca-key"; echo x >> "$0/ssh_host_ed25519_key"; rm -f "$0/revoked.krl"',
            str(directory),
        ], check=False)
        self.assertNotIn(b"PRIVATE", tried.stdout)
        self.assertTrue((directory / "revoked.krl").exists())
        self.assertNotIn("x\n", (directory / "ssh_host_ed25519_key").read_text()[-3:])

    async def _check_frames(self, key: Path) -> None:
        """What is no stream of frames ends it; who does not read costs little."""
        ssh = self.lab.ssh(key)
        for source in ("head -c 3000000 /dev/zero", "printf 'GET / HTTP/1.1\\r\\n\\r\\n'",
                       "printf '\\377\\377'"):
            done = await self.lab.run(
                self.lab.outside, "sh", "-c", f'({source}; sleep 5) | timeout 20 "$@"', "sh",
                *ssh, check=False,
            )
            self.assertIn(b"no frames", done.stderr)
        program = Program()
        argv = [
            "setsid", "nsenter", f"--net=/run/netns/{self.lab.outside}", "--", "sh", "-c",
            'sleep 60 | "$@" | sleep 60', "sh", *ssh,
        ]
        transport = self.lab.platform.reactor.spawnProcess(program, argv[0], argv, os.environ)

        async def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(transport.pid, SIGKILL)
            await program.ended

        self.addCleanup(end)

        async def end_of_tunnel() -> int | None:
            return next((
                pid for pid, command in processes().items()
                if command.startswith(PYTHON) and str(self.lab.platform.state) in command
            ), None)

        pid = await self.lab.platform.until(end_of_tunnel, "the tunnel is open", 20)
        await self.lab.platform.sleep(1)
        await self.lab.run(
            self.lab.inside, "python3", "-c", FLOOD, f"{self.lab.net}.255"
        )
        memory = int(re.findall(
            r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M
        )[0]) << 10
        self.assertTrue(memory < MOST_MEMORY, memory)
        self.assertEqual((await self.said(key, "get-server-hostname"))[0], 0)
