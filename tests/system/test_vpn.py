"""Boards that enrol in the VPN and come in through its tunnel."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.dialogue import Dialogue
from tests.system.live import ROOT, LivePlatform, Program, why_not
from tests.system.vpn_lab import HOST, ID, IMAGE, MAC, NAME, OUTSIDE, VpnLab
from walt.server.runtime.process import ProcessResult

OLD_STREAM = """
import pickle, socket, sys
peer = socket.create_connection((sys.argv[1], 12347))
peer.sendall(b"13\\n" + pickle.dumps({"model": sys.argv[2], "entrypoint": "x"}, protocol=4))
print(*(line.strip() for line in peer.makefile()))
"""
# A machine of its own as far as this needs one: accounts, homes, an ssh server at port 22.
ENTRY_POINT = """
set -e
grep -v walt-vpn "$1/etc/passwd" > "$1/passwd"; cp "$1/passwd" "$1/etc/passwd"
sed -i /walt-vpn/d "$1/etc/group" "$1/etc/shadow" "$1/etc/gshadow"
echo "$3 walt.example.org" >> "$1/etc/hosts"
mount --bind "$1/etc" /etc
mount -t tmpfs none /home
mount -t tmpfs none /run
mkdir -p /run/sshd
sh "$2"
exec /usr/sbin/sshd -D -e -f /dev/null -o Port=22 -o HostKey="$1/host" -o UsePAM=no \
    -o PidFile=none -o PasswordAuthentication=no
"""
ELSEWHERE = "198.51.100.9"  # an entry point of former days
FILES: dict[str, str | Path] = {"/boot/rpi-5-b/boot.img": "an image of the firmware\n" * 5000}
OLD_CALL = """
import socket, sys
where, api, call = sys.argv[1:]
if "/" in where:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(where)
else:
    peer = socket.create_connection((where, 12345))
peer.sendall(f"10\\n{api}\\n{call}\\n".encode())
lines = peer.makefile()
print(lines.readline().strip(), lines.readline().strip())
"""


class TunnelTests(TestCase):
    skip = why_not()
    timeout = patient(400)

    async def opened(self, lab: VpnLab, key: Path, device: str, mac: str, ip: str) -> Any:
        """Open a tunnel and wait until the server answers through it."""
        program, transport = lab.tunnel(key, device, mac)

        async def is_there() -> bool:
            shown = await lab.run(lab.outside, "ip", "link", "show", "dev", device, check=False)
            return shown.status == 0

        await lab.platform.until(is_there, "the device is there", 20)
        await lab.ip_of(lab.outside, "address", "add", f"{ip}/24", "dev", device)
        try:
            await lab.platform.until(lambda: lab.reaches(device), "the tunnel is open", 30)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{program.err.decode()}") from None
        return program, transport

    async def said(self, lab: VpnLab, key: Path, *words: str) -> tuple[int, str]:
        """Return the status and output of a command by ssh."""
        done = await lab.run(lab.outside, *lab.ssh(key), *words, check=False)
        return done.status, done.stdout.decode()

    async def devices(self, lab: VpnLab) -> list[str]:
        """Return the network devices of tunnels at the server."""
        shown = await lab.run(
            lab.platform.namespace, "ip", "-json", "link", "show", "master", "walt-net"
        )
        return [one["ifname"] for one in json.loads(shown.stdout)
                if one["ifname"].startswith("walt-vpn")]

    async def test_life(self) -> None:
        """Special commands; a tunnel carries frames, comes back, ends with its key."""
        from twisted.internet import reactor

        lab = VpnLab(self, reactor)
        await lab.start(FILES)
        key, mac = await lab.enrolled()
        platform = lab.platform
        self.assertEqual(await self.said(lab, key, "get-server-hostname"),
                         (0, "walt.example.org\n"))
        status, text = await self.said(lab, key, "check-in-walt-net")
        self.assertEqual((status, text.split()[0]), (1, "FAILED"))
        await self._check_inside(lab, key)
        program, _ = await self.opened(lab, key, "vpn0", mac, f"{lab.net}.60")
        (device,) = await self.devices(lab)
        rows = await platform.services()
        self.assertEqual(rows["sshd"]["state"], "running")
        await self._check_frames(lab)

        # A second tunnel of the same board takes the place of the first.
        again, _ = await self.opened(lab, key, "vpn1", mac, f"{lab.net}.61")
        self.assertEqual(await program.ended, 1)
        self.assertNotIn(device, await self.devices(lab))

        await self._check_sshd_killed(lab, key, mac)
        self.assertEqual(await again.ended, 1)
        await self._check_restart(lab, key, mac)
        await self._check_expiry(lab, key)
        await self._check_revocation(lab, key, mac)

    async def _check_inside(self, lab: VpnLab, key: Path) -> None:
        """A board in walt-net is told so, at the port 22 that it knows."""
        words = lab.ssh(key, "-o", "StrictHostKeyChecking=no",
                        "-o", "UserKnownHostsFile=/dev/null")
        words[words.index("-p") + 1] = "22"
        words[-1] = f"walt-vpn@{lab.net}.1"

        async def is_told() -> bool:
            done = await lab.run(lab.inside, *words, "check-in-walt-net", check=False)
            return (done.status, done.stdout) == (0, b"OK\n")

        await lab.platform.until(is_told, "the board in walt-net is told so", 20)

    async def _check_frames(self, lab: VpnLab) -> None:
        """Frames of every size pass, both ways, whole."""
        for size in (0, 1, 100, 1472):
            done = await lab.run(
                lab.outside, "ping", "-c", "3", "-i", "0.2", "-W", "5", "-M", "do", "-s",
                str(size), "-I", "vpn0", f"{lab.net}.1", check=False,
            )
            self.assertIn(b" 0% packet loss", done.stdout, size)

    async def _check_sshd_killed(self, lab: VpnLab, key: Path, mac: str) -> None:
        """sshd comes back by itself; what was open goes on meanwhile."""
        rows = await lab.platform.services()
        lab.platform.expects("sshd ended unexpectedly")
        os.kill(rows["sshd"]["pid"], signal.SIGKILL)

        async def is_back() -> bool:
            now = (await lab.platform.services())["sshd"]
            return now["state"] == "running" and now["pid"] != rows["sshd"]["pid"]

        await lab.platform.until(is_back, "sshd is back", 30)
        await lab.platform.until(
            lambda: self._says(lab, key), "sshd answers again", 20
        )
        # Whoever enters takes the place of the tunnel that is there.
        await self.opened(lab, key, "vpn2", mac, f"{lab.net}.62")

    async def _says(self, lab: VpnLab, key: Path) -> bool:
        return (await self.said(lab, key, "get-server-hostname"))[0] == 0

    async def _check_restart(self, lab: VpnLab, key: Path, mac: str) -> None:
        """A restart of the server ends tunnels, and leaves no process of them; they come back."""
        await lab.platform.stop(signal.SIGUSR2)
        self.assertEqual([one for one in lab.platform.left_overs() if "sshd" in one], [])
        await lab.platform.start()
        await lab.platform.until(lambda: self._says(lab, key), "sshd answers again", 20)
        await self.opened(lab, key, "vpn3", mac, f"{lab.net}.63")

    async def _check_expiry(self, lab: VpnLab, key: Path) -> None:
        """A certificate that ends while it is used ends the tunnel; afterwards it opens none."""
        platform = lab.platform
        good = Path(f"{key}-cert.pub").read_text()
        await platform.runner.run([
            "ssh-keygen", "-q", "-s", str(platform.state / "vpn-server" / "vpn-ca-key"),
            "-I", ID, "-n", "walt-vpn", "-V", "-1m:+8s", f"{key}.pub",
        ])
        program, _ = lab.tunnel(key, "vpn4", "52:54:00:00:00:77", "--once")
        await program.ended
        self.assertIn(b"certificate has expired", program.err)
        self.assertNotEqual((await self.said(lab, key, "get-server-hostname"))[0], 0)
        Path(f"{key}-cert.pub").write_text(good)
        self.assertEqual((await self.said(lab, key, "get-server-hostname"))[0], 0)

    async def _check_revocation(self, lab: VpnLab, key: Path, mac: str) -> None:
        """The tunnel ends at once, and the key opens nothing any more."""
        program, _ = await self.opened(lab, key, "vpn5", mac, f"{lab.net}.65")
        done = await lab.platform.runner.run([
            "python3", "-c", OLD_CALL, f"{lab.platform.runtime}/rpc.sock", "SSAPI",
            f"('API_CALL', 'revoke_vpn_auth_key', ('{ID}',), {{}})",
        ])
        self.assertIn(b"RESULT', None", done.stdout)
        self.assertEqual(await program.ended, 1)
        self.assertEqual(await self.devices(lab), [])
        self.assertEqual((await self.said(lab, key, "get-server-hostname"))[0], 255)


class IsolatedTests(TestCase):
    skip = why_not()
    timeout = patient(200)

    async def test_a_platform_in_a_namespace(self) -> None:
        """Tunnels come in by the network of the host, and end in the one of the platform."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        port = 20000 + os.getpid() % 20000
        platform.write_config(
            f"vpn: {{ssh-entrypoint: '127.0.0.1:{port}', http-entrypoint: a.invalid,\n"
            f"      boot-mode: permissive, ssh-port: {port}}}\n"
        )
        await platform.import_image()
        await platform.add_image(IMAGE, FILES, models="rpi-5-b")
        await platform.start()
        ip = f"{platform.net}.50"
        done = await platform.event(
            "commit", "--force-name", "walt.node.rpi-5-b", "", ip, MAC, NAME, "0", "unknown"
        )
        self.assertEqual(done.status, 0, done.stderr)

        async def known() -> bool:
            return NAME in await platform.ok("node", "show", "--all")

        await platform.until(known, "the board is a node", 60)
        key = platform.base / "board"
        await platform.runner.run(
            ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)]
        )
        inside = ["nsenter", f"--net=/run/netns/{platform.namespace}", "--"]

        key_of_root = (platform.state / "vpn-server" / "requester-key").read_text().strip()

        async def ask(path: str, *options: str) -> str:
            told = await platform.runner.run([
                *inside, "curl", "--silent", "--fail", *options,
                "--header", f"X-WalT-Requester-Key: {key_of_root}",
                f"http://{platform.net}.1/walt-vpn/{path}?fake_requester_ip={ip}",
            ], timeout=patient(30))
            return told.stdout.decode()

        self.assertEqual(await ask("enroll", "--form", f"ssh-pubkey=@{key}.pub"), "OK\n")
        Path(f"{key}-cert.pub").write_text(await ask("node-conf/ssh-pubkey-cert") + "\n")
        known_hosts = platform.base / "known_hosts"
        known_hosts.write_text(await ask("node-conf/ssh-entrypoint-host-keys"))
        ssh = [
            "ssh", "-F", "/dev/null", "-q", "-T", "-i", str(key), "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes",
            "-o", f"CertificateFile={key}-cert.pub", "-p", str(port), "walt-vpn@127.0.0.1",
        ]
        program = Program()
        transport = platform.reactor.spawnProcess(program, ssh[0], ssh, os.environ)

        async def is_there() -> bool:
            shown = await platform.runner.run(
                [*inside, "ip", "-json", "link", "show", "master", "walt-net"]
            )
            return b"walt-vpn0" in shown.stdout

        try:
            await platform.until(is_there, "the tunnel ends in the platform", 30)
        finally:
            transport.signalProcess("KILL")
            await program.ended
        self.assertEqual(await platform.stop(), 0)
        self.assertEqual(platform.left_overs(), [])


class AdminTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def admin(self, lab: VpnLab, *words: str) -> ProcessResult:
        """Run walt-vpn-admin."""
        return await lab.platform.runner.run(
            [sys.executable, "-m", "walt.server.tools.vpn.admin", "--config",
             str(lab.platform.config), *words],
            check=False, env={"PYTHONPATH": str(ROOT)}, cwd=str(lab.platform.base),
        )

    async def test_administration(self) -> None:
        """Subcommands, the menu, an entry point on another machine."""
        from twisted.internet import reactor

        lab = VpnLab(self, reactor)
        await lab.start(FILES)
        key, mac = await lab.enrolled()
        self.assertEqual(json.loads((await self.admin(lab, "keys", "--json")).stdout), [{
            "certid": ID, "revoked": False, "forgotten_device": False,
            "device_label": f'node "{NAME}" mac={MAC}',
        }])
        await self._check_entry_point(lab, key, mac)
        for words, status in ((("revoke", "vpn_none"), 1), (("revoke",), 2), (("x",), 2), ((), 1)):
            self.assertEqual((await self.admin(lab, *words)).status, status, words)
        await self._check_menu(lab, key)
        self.assertIn(b"already revoked", (await self.admin(lab, "revoke", ID)).stderr)
        await lab.platform.ok("device", "forget", NAME, "--force")
        listed = (await self.admin(lab, "keys")).stdout.decode()
        self.assertIn(f'forgotten device "{NAME}" mac={MAC}', listed.partition("Revoked")[2])

    async def _check_menu(self, lab: VpnLab, key: Path) -> None:
        """Arrows and Enter; the selection stops at the last entry; a key is revoked."""
        down = b"\x1b[B"
        person = Dialogue(
            (b"Quit", down + b"\n"), (b"Enter returns", b"\n"),
            (b"Quit", down + b"\n"), (b"Enter returns", b"\n"),
            (b"Quit", down + b"\n"), (b"to revoke", b"vpn_none\n"),
            (b"not exist", f"{ID}\n".encode()), (b"Enter returns", b"\n"),
            (b"Quit", down * 20 + b"\n"),
        )
        argv = [sys.executable, "-m", "walt.server.tools.vpn.admin", "--config",
                str(lab.platform.config)]
        transport = lab.platform.reactor.spawnProcess(
            person, argv[0], argv, {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            str(lab.platform.base), usePTY=True,
        )

        async def ended() -> bool:
            return person.ended.called

        try:
            await lab.platform.until(ended, "the person has left the menu", 20)
        except AssertionError:
            transport.signalProcess("KILL")
            await person.ended
            raise AssertionError(f"the menu waits: {bytes(person.seen)!r}") from None
        self.assertEqual(await person.ended, 0, bytes(person.seen))
        for text in (f'{ID}: used by node "{NAME}" mac={MAC}', "exist", "Done.", "keys (1)"):
            self.assertIn(text.encode(), person.seen)
        self.assertTrue(person.seen.rstrip().endswith(b"\x1b[?1049l"))
        status = (await lab.run(
            lab.outside, *lab.ssh(key), "get-server-hostname", check=False
        )).status
        self.assertEqual(status, 255)

    async def _check_entry_point(self, lab: VpnLab, key: Path, mac: str) -> None:
        """The script makes another machine pass boards on, and is run once."""
        written = await self.admin(lab, "entry-point")
        script = Path(written.stdout.decode().strip())
        self.assertEqual((script.name, script.stat().st_mode & 0o777), ("ssh-ep-setup.sh", 0o755))
        twice = await lab.run(lab.outside, "unshare", "--mount", "sh", "-c", (
            "mount -t tmpfs none /home && mkdir /home/walt-vpn && exec sh \"$0\""
        ), str(script), check=False)
        self.assertEqual(twice.status, 1)
        self.assertIn(b"entry point already", twice.stderr)
        place = lab.platform.base / "entry"
        place.mkdir()
        await lab.platform.runner.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "host")]
        )
        await lab.platform.runner.run(["cp", "-a", "/etc", str(place)])
        program = Program()
        argv = [
            "nsenter", f"--net=/run/netns/{lab.outside}", "--", "unshare", "--mount", "sh", "-c",
            ENTRY_POINT, "sh", str(place), str(script), OUTSIDE,
        ]
        transport = lab.platform.reactor.spawnProcess(program, argv[0], argv, os.environ)

        async def end() -> None:
            if transport.pid:
                transport.signalProcess("TERM")
            await program.ended

        self.addCleanup(end)

        async def trial(entry: str) -> ProcessResult:
            return await lab.run(
                lab.platform.namespace, sys.executable, "-m", "walt.server.tools.vpn.trial",
                "--config", str(lab.platform.config), entry, check=False,
            )

        async def lets_in() -> bool:
            return (await trial(HOST)).status == 0

        try:
            await lab.platform.until(lets_in, "the entry point lets boards in", 30)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{program.err!r} {await trial(HOST)}") from None
        self.assertEqual((await trial(f"{OUTSIDE}:2222")).status, 0)  # the server itself is one
        self.assertEqual((await trial(f"{OUTSIDE}:80")).status, 1)
        await self._check_doctor(lab)
        await self._check_passing(lab, key, mac)

    async def _check_doctor(self, lab: VpnLab) -> None:
        """The doctor tries what boards of the VPN need."""
        done = await lab.run(
            lab.platform.namespace, sys.executable, "-m", "walt.server.tools.doctor.main", "--json",
            "--config", str(lab.platform.config), check=False,
        )
        rows = {row["step"]: row for row in json.loads(done.stdout)}
        self.assertEqual(rows["VPN sshd"]["state"], "good", rows)
        self.assertEqual(rows["VPN ssh entry point"]["state"], "good", rows)
        self.assertEqual(rows["VPN HTTP entry point"]["state"], "good", rows)

    async def _check_passing(self, lab: VpnLab, key: Path, mac: str) -> None:
        """A board comes in by way of the entry point, and gets nothing else of it."""
        words = [
            "ssh-agent", "sh", "-c", 'ssh-add -q "$0"; exec "$@"', str(key),
            *lab.ssh(key, "-A", "-o", "StrictHostKeyChecking=no", "-o",
                     "UserKnownHostsFile=/dev/null"),
        ]
        words[words.index("-p") + 1] = "22"
        words[-1] = f"walt-vpn@{HOST}"
        for command in ("-oProxyCommand=id>&2", "; id", "$(id)", "`id`", "-V", "id"):
            done = await lab.run(lab.outside, "timeout", "10", *words, "--", command, check=False)
            self.assertNotIn(b"uid=", done.stdout + done.stderr)
        done = await lab.run(lab.outside, *words, "get-server-hostname", check=False)
        self.assertEqual(done.stdout, b"walt.example.org\n", done.stderr)
        program = Program()
        argv = [
            "setsid", "nsenter", f"--net=/run/netns/{lab.outside}", "--", sys.executable, "-m",
            "walt.vpn.tunnel", "--device", "vpn0", "--mac", mac, "--once", *words,
        ]
        transport = lab.platform.reactor.spawnProcess(
            program, argv[0], argv, {**os.environ, "PYTHONPATH": str(ROOT)}
        )

        async def carries() -> bool:
            await lab.run(lab.outside, "ip", "address", "replace", f"{lab.net}.60/24", "dev",
                          "vpn0", check=False)
            return await lab.reaches("vpn0")

        try:
            await lab.platform.until(carries, "frames pass the entry point", 30)
        finally:
            os.killpg(transport.pid, signal.SIGKILL)
            await program.ended


class EnrolmentTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_enrolment(self) -> None:
        """A board on the cable enrols; strangers, and those who pose as it, do not."""
        from twisted.internet import reactor

        lab = VpnLab(self, reactor)
        lab.http_entrypoint = ELSEWHERE
        platform = lab.platform
        await lab.start(FILES)
        await lab.board_inside()
        key = await lab.new_key()
        await self._check_strangers(lab, key)
        await lab.register()
        for item, text in (
            ("ssh-entrypoint", f"{OUTSIDE}:2222"), ("http-entrypoint", ELSEWHERE),
            ("boot-mode", "permissive"), ("vpn-mac", ""), ("ssh-pubkey-cert", ""),
            ("http-path", f"walt-vpn/per-ip/{lab.ip.replace('.', '-')}"),
        ):
            self.assertEqual(await lab.http(lab.inside, f"node-conf/{item}"), f"200 {text}")
        self.assertEqual(
            await lab.http(lab.outside, "server", server=OUTSIDE), "200 walt.example.org\n"
        )
        self.assertEqual(await lab.enrol(key), "200 OK\n")
        vpn_mac = (await lab.http(lab.inside, "node-conf/vpn-mac")).removeprefix("200 ")
        self.assertRegex(vpn_mac, r"^52:54:00(:[0-9a-f]{2}){3}$")
        certificate = await lab.http(lab.inside, "node-conf/ssh-pubkey-cert")
        Path(f"{key}-cert.pub").write_text(certificate.removeprefix("200 "))
        shown = await platform.runner.run(["ssh-keygen", "-L", "-f", f"{key}-cert.pub"])
        self.assertIn(f'Key ID: "{ID}"'.encode(), shown.stdout)
        rows = json.loads(await platform.ok("node", "show", "--all", "--json"))
        self.assertEqual([row["type"] for row in rows["free"]], ["vpn", "physical"])
        await self._check_dhcp(lab, vpn_mac)
        told = [
            (await lab.run(
                lab.inside, "python3", "-c", OLD_CALL, f"{lab.net}.1", "VSAPI",
                f"('API_CALL', 'get_device_info', ('{mac}',), {{}})",
            )).stdout for mac in (MAC, vpn_mac, "52:54:00:ff:ff:ff")
        ]
        self.assertEqual(told[0], told[1])
        self.assertIn(f"'mac': '{MAC}', 'ip': '{lab.ip}', 'name': '{NAME}'".encode(), told[1])
        self.assertEqual(told[2], b"10.0 ('RESULT', None)\n")
        await self._check_boot_files(lab)
        self.assertEqual(await lab.enrol(await lab.new_key("second")), "200 OK\n")
        self.assertEqual(
            await lab.http(lab.inside, "node-conf/vpn-mac"), f"200 {vpn_mac}"
        )
        card = await lab.run(
            lab.inside, "python3", "-c", OLD_STREAM, f"{lab.net}.1", "rpi-3-b-plus"
        )
        self.assertRegex(card.stdout.decode(), r"^READY ERR VPN nodes need no image")
        await self._check_redirected(lab, ELSEWHERE)
        await platform.stop(signal.SIGUSR2)  # keeps the cable
        lab.http_entrypoint = OUTSIDE
        platform.write_config(lab.config("enforced"))
        await platform.start()
        await self._check_redirected(lab, ELSEWHERE)  # boards have it in their EEPROM
        self.assertEqual(await lab.http(lab.inside, "node-conf/boot-mode"), "200 enforced")
        self.assertEqual(
            await lab.http(lab.inside, "node-conf/vpn-mac"), f"200 {vpn_mac}"
        )
        await self._check_revocation(lab, key)

    async def _check_strangers(self, lab: VpnLab, key: Path) -> None:
        """Nobody but a board that the platform knows enrols."""
        for answer in (
            await lab.enrol(key), await lab.http(lab.inside, "node-conf/vpn-mac"),
            await lab.http(lab.inside, "node-conf/ssh-pubkey-cert"),
            await lab.http(lab.outside, "enroll", "--form", f"ssh-pubkey=@{key}.pub",
                           server=OUTSIDE),
        ):
            self.assertTrue(answer.startswith("400 ") and "rpi-5-b" in answer, answer)
        await lab.register("d8:3a:dd:00:00:06", "pi6", f"{lab.net}.51")
        # Another board takes its address; a proxy and nodes speak for it.
        await lab.ip_of(lab.inside, "address", "add", f"{lab.net}.51/24", "dev", "eth0")
        posed = await lab.http(
            lab.inside, "enroll", "--interface", f"{lab.net}.51",
            "--form", f"ssh-pubkey=@{key}.pub",
        )
        self.assertTrue(posed.startswith("400 ") and "another machine" in posed, posed)
        query = f"?fake_requester_ip={lab.net}.51"
        own = lab.platform.state / "vpn-server" / "requester-key"
        self.assertIn("400 ", await lab.enrol(key, query=query))
        self.assertIn("400 ", await lab.http(
            lab.platform.namespace, f"enroll{query}", "--header", "X-Forwarded-For: 10.1.1.1",
            "--header", f"X-WalT-Requester-Key: {own.read_text().strip()}",
            "--interface", f"{lab.net}.1", "--form", f"ssh-pubkey=@{key}.pub",
        ))
        self.assertEqual(own.stat().st_mode & 0o777, 0o600)
        for header, status in (
            ("Accept: */*", "400"), ("X-WalT-Requester-Key: x", "400"),
            (f"X-WalT-Requester-Key: {own.read_text().strip()}", "200"),
        ):
            answer = await lab.http(
                lab.platform.namespace, f"node-conf/vpn-mac{query}", "--header", header
            )
            self.assertEqual(answer.split(" ")[0], status, header)
        await lab.ip_of(lab.inside, "address", "del", f"{lab.net}.51/24", "dev", "eth0")

    async def _check_redirected(self, lab: VpnLab, address: str) -> None:
        """A board in walt-net reaches the server where its EEPROM says."""

        async def reached() -> bool:
            said = await lab.run(
                lab.inside, "curl", "--silent", "--max-time", "2",
                f"http://{address}/walt-vpn/server", check=False,
            )
            return said.stdout == b"walt.example.org\n"

        await lab.platform.until(reached, "the server answers for an entry point", 20)
        for port in ("81", "12345"):
            refused = await lab.run(
                lab.inside, "curl", "--silent", "--max-time", "1", f"http://{address}:{port}/",
                check=False,
            )
            self.assertNotEqual(refused.status, 0)

    async def _check_dhcp(self, lab: VpnLab, vpn_mac: str) -> None:
        """dhcpd has two entries of the board, both with its address."""
        file = lab.platform.state / "services" / "dhcpd" / "dhcpd.conf"

        async def written() -> bool:
            text = file.read_text()
            return f"{NAME}-vpn " in text and f"{NAME}-vpnboot " in text

        await lab.platform.until(written, "both entries are there", 40)
        text = file.read_text()
        self.assertIn(
            f"host {NAME}-vpnboot {{ hardware ethernet {MAC}; fixed-address {lab.ip};", text
        )
        self.assertIn(
            f"host {NAME}-vpn {{ hardware ethernet {vpn_mac}; fixed-address {lab.ip};", text
        )

    async def _check_boot_files(self, lab: VpnLab) -> None:
        """From outside, the boot image comes with a signature of the server, and nothing else."""
        platform = lab.platform
        place = f"per-ip/{lab.ip.replace('.', '-')}"
        image, signature, public = (platform.base / name for name in ("img", "sig", "pem"))

        async def fetch(path: str, into: Path) -> str:
            return await lab.http(lab.outside, path, "--output", str(into), server=OUTSIDE)

        async def is_there() -> bool:
            return await fetch(f"{place}/boot.img", image) == "200 "

        await platform.until(is_there, "the boot image is there", 60)
        self.assertEqual(image.read_text(), str(FILES["/boot/rpi-5-b/boot.img"]))
        self.assertEqual(await fetch(f"{place}/boot.sig", signature), "200 ")
        self.assertEqual(await fetch("node-conf/public.pem", public), "200 ")
        digest, _, signed = signature.read_text().splitlines()
        self.assertEqual(digest, hashlib.sha256(image.read_bytes()).hexdigest())
        signature.write_bytes(bytes.fromhex(signed.removeprefix("rsa2048: ")))
        checked = await platform.runner.run([
            "openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(signature),
            str(image),
        ])
        self.assertEqual(checked.stdout, b"Verified OK\n")
        for path in (
            "boot.imgx", "../../../etc/passwd", "..%2f..%2f..%2f..%2fetc/passwd", "%00",
            "../persist/x", "boot.img/../../../../../../etc/passwd",
        ):
            answer = await lab.http(lab.outside, f"{place}/{path}", server=OUTSIDE)
            self.assertTrue(answer.startswith("404 "), answer)
        # An address that no board has: as little as one of another node.
        answer = await lab.http(lab.outside, "per-ip/192-168-181-1/boot.img", server=OUTSIDE)
        self.assertTrue(answer.startswith("404 "), answer)

    async def _check_revocation(self, lab: VpnLab, key: Path) -> None:
        """By the old protocol of tools: the key is listed, revoked once, and never again good."""

        async def call(text: str) -> str:
            done = await lab.platform.runner.run(
                ["python3", "-c", OLD_CALL, f"{lab.platform.runtime}/rpc.sock", "SSAPI", text]
            )
            return done.stdout.decode().strip()

        listed = await call("('API_CALL', 'get_vpn_auth_keys', (), {})")
        self.assertIn(f"'certid': '{ID}', 'revoked': False, 'forgotten_device': False", listed)
        revoke = f"('API_CALL', 'revoke_vpn_auth_key', ('{ID}',), {{}})"
        self.assertEqual(await call(revoke), "10.0 ('RESULT', None)")
        self.assertIn("already revoked", await call(revoke))
        self.assertIn("Did not find", await call(revoke.replace(ID, "vpn_none")))
        krl = lab.platform.state / "vpn-server" / "revoked.krl"
        done = await lab.platform.runner.run(
            ["ssh-keygen", "-Q", "-f", str(krl), f"{key}-cert.pub"], check=False
        )
        self.assertIn(b"REVOKED", done.stdout)
        refused = await lab.enrol(key)
        self.assertTrue(refused.startswith("400 ") and "revoked" in refused, refused)
        await lab.platform.ok("device", "forget", NAME, "--force")
        self.assertIn(
            f"forgotten device \"{NAME}\" mac={MAC}",
            await call("('API_CALL', 'get_vpn_auth_keys', (), {})"),
        )
