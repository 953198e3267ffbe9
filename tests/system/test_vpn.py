"""Boards that enrol in the VPN and come in through its tunnel."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import why_not
from tests.system.vpn_lab import ID, MAC, NAME, OUTSIDE, VpnLab

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


class EnrolmentTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_enrolment(self) -> None:
        """A board on the cable enrols; strangers, and those who pose as it, do not."""
        from twisted.internet import reactor

        lab = VpnLab(self, reactor)
        platform = lab.platform
        await lab.start(FILES)
        await lab.board_inside()
        key = await lab.new_key()
        await self._check_strangers(lab, key)
        await lab.register()
        for item, text in (
            ("ssh-entrypoint", f"{OUTSIDE}:2222"), ("http-entrypoint", OUTSIDE),
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
        await platform.stop(signal.SIGUSR2)  # keeps the cable
        await platform.start()
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
        self.assertIn("400 ", await lab.enrol(key, query=query))
        self.assertIn("400 ", await lab.http(
            lab.platform.namespace, f"enroll{query}", "--header", "X-Forwarded-For: 10.1.1.1",
            "--interface", f"{lab.net}.1", "--form", f"ssh-pubkey=@{key}.pub",
        ))
        self.assertEqual(
            await lab.http(lab.platform.namespace, f"node-conf/vpn-mac{query}"), "200 "
        )
        await lab.ip_of(lab.inside, "address", "del", f"{lab.net}.51/24", "dev", "eth0")

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
