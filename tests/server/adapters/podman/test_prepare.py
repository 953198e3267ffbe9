"""What the server writes into mounted images."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.server.workers.test_unpack_tree import CAPABILITY
from walt.server.adapters.podman import prepare as module
from walt.server.adapters.podman.prepare import Preparation, expand, load_spec, prepare
from walt.server.domain.images.server_values import Facts

KEY = "ssh-rsa AAAA server"


class PrepareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="wtpr-"))
        self.addCleanup(shutil.rmtree, self.base)
        self.tree = self.base / "image"
        for name in ("bin", "etc", "root", "boot/pc-x86-64", "usr/lib", "usr/local/bin"):
            (self.tree / name).mkdir(parents=True)
        keys = self.base / "keys"
        keys.mkdir()
        for name in ("ssh_host_ecdsa_key", "ssh_host_ecdsa_key.pub", "dropbear_ecdsa_host_key"):
            (keys / name).write_text(name)
        values = {
            **Facts("192.168.1.1", lambda: "52:54:00:00:00:01", lambda: KEY).template_values(),
            "walt_image_id": "ab" * 32, "walt_image_size_kib": "1234",
        }
        self.todo = Preparation(values, keys, KEY, self.base / "server.spec")
        self.said: list[str] = []

    def prepare(self) -> list[str]:
        return prepare(self.tree, self.todo, self.said.append)

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(self.tree)): (path.lstat().st_mode, path.read_bytes())
            for path in self.tree.rglob("*") if path.is_file() and not path.is_symlink()
        }

    def test_twice_is_the_same_as_once(self) -> None:
        """A tree that survived a crash is prepared again without effect."""
        (self.tree / "etc/resolv.conf").write_text("nameserver 1.1.1.1\n")
        self.assertEqual(self.prepare(), [])
        first = self.snapshot()
        self.assertEqual(self.prepare(), [])
        self.assertEqual(self.snapshot(), first)
        self.assertEqual((self.tree / "root/.ssh/authorized_keys").read_text(), KEY + "\n")

    def test_capabilities(self) -> None:
        """Programs with capabilities are set-user-id root, those of others stay as they are."""
        for name, mode, owner in (
            ("usr/bin/ping", 0o755, 0), ("usr/lib/deep/dumpcap", 0o750, 0),
            ("bin/theirs", 0o755, 7), ("usr/bin/data", 0o644, 0), ("usr/bin/plain", 0o755, 0),
        ):
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
            os.chown(path, owner, 0)
            path.chmod(mode)
            if not name.endswith("plain"):
                os.setxattr(path, "security.capability", CAPABILITY)
        (self.tree / "usr/outside").symlink_to("/usr/bin")
        (self.tree / "opt").symlink_to("usr/bin")
        self.assertEqual(self.prepare(), [])
        modes = {
            name: stat.S_IMODE((self.tree / name).stat().st_mode)
            for name in ("usr/bin/ping", "usr/lib/deep/dumpcap", "bin/theirs", "usr/bin/data",
                         "usr/bin/plain")
        }
        self.assertEqual(list(modes.values()), [0o4755, 0o4750, 0o755, 0o644, 0o755])
        told = sorted(line.split()[0] for line in self.said if "capabilities" in line)
        self.assertEqual(told, ["/bin/theirs", "/usr/bin/ping", "/usr/lib/deep/dumpcap"])

    def test_spec_bombs(self) -> None:
        """A few bytes that stand for much, or nest without end, are refused."""
        (self.base / "server.spec").write_text("features: [ptp]\n")
        (self.tree / "etc/walt").mkdir()
        bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        )
        for text in (bomb, "[" * 20_000, "a: " * 10_000, "features: {x: " + "y" * 70_000 + "}"):
            (self.tree / "etc/walt/image.spec").write_text(text)
            (warning,) = self.prepare()
            self.assertTrue(warning.startswith("image spec: "), warning)

    def test_keys_and_their_modes(self) -> None:
        """Host keys are installed readable by root alone, the directories being real."""
        (self.tree / "etc/dropbear").symlink_to("/tmp")
        self.prepare()
        for name in ("etc/ssh/ssh_host_ecdsa_key", "etc/dropbear/dropbear_ecdsa_host_key"):
            self.assertEqual(stat.S_IMODE((self.tree / name).stat().st_mode), 0o600)
        self.assertFalse((self.tree / "etc/dropbear").is_symlink())
        self.assertEqual(stat.S_IMODE((self.tree / "root/.ssh").stat().st_mode), 0o700)

    def test_names(self) -> None:
        """resolv.conf names the server, even behind a dangling link; hostname is gone."""
        (self.tree / "etc/resolv.conf").symlink_to("/run/nowhere/resolv.conf")
        (self.tree / "etc/hostname").write_text("builder")
        (self.tree / "usr/local/bin/walt-echo").write_text("old")
        self.prepare()
        self.assertEqual(
            (self.tree / "etc/resolv.conf").read_text(),
            "domain walt\nsearch walt.\nnameserver 192.168.1.1\n",
        )
        self.assertEqual(
            os.readlink(self.tree / "etc/resolv.conf.saved"), "/run/nowhere/resolv.conf"
        )
        self.assertFalse((self.tree / "etc/hostname").exists())
        self.assertFalse((self.tree / "usr/local/bin/walt-echo").exists())
        self.assertEqual(stat.S_IMODE((self.tree / "etc/hosts").stat().st_mode), 0o644)

    def test_an_authorized_key_is_appended(self) -> None:
        """Keys that are there stay."""
        (self.tree / "root/.ssh").mkdir(mode=0o700)
        (self.tree / "root/.ssh/authorized_keys").write_text(
            "ssh-rsa CCCC walt-user-key\nssh-rsa BBBB user"
        )
        self.prepare()
        self.assertEqual(
            (self.tree / "root/.ssh/authorized_keys").read_text(), f"ssh-rsa BBBB user\n{KEY}\n"
        )

    def test_boot_links_become_relative(self) -> None:
        """Absolute links below /boot, and those on the way to their targets, are relative."""
        (self.tree / "boot/kernel").symlink_to("/usr/lib/vmlinuz")
        (self.tree / "boot/pc-x86-64/kernel").symlink_to("/boot/kernel")
        (self.tree / "usr/lib/vmlinuz").symlink_to("/usr/lib/vmlinuz-1")
        (self.tree / "usr/lib/vmlinuz-1").write_text("kernel")
        self.assertEqual(self.prepare(), [])
        self.assertEqual(os.readlink(self.tree / "boot/kernel"), "../usr/lib/vmlinuz")
        self.assertEqual((self.tree / "boot/pc-x86-64/kernel").read_text(), "kernel")

    def test_boot_links_stay_inside(self) -> None:
        """Whatever /boot leads to is in the image, for who follows links from outside too."""
        outside = self.base / "secret"
        outside.write_text("secret")
        (self.tree / "inner/deep").mkdir(parents=True)
        up = "../" * 30
        places = {
            "boot/pc-x86-64/leak": f"{up}{str(outside)[1:]}",
            "boot/pc-x86-64/up": "../../../secret",
            "boot/pc-x86-64/dir": "../../inner", "inner/deep/leak": "../../../secret",
            "boot/pc-x86-64/top": "/", "inner/root": up, "boot/pc-x86-64/turn": "top/../../secret",
            "boot/pc-x86-64/through": "../../inner/root/secret", "boot/pc-x86-64/loop": "loop",
            "boot/pc-x86-64/nothing": "../../inner/root/../secret/x", "boot/same": "pc-x86-64",
            "boot/pc-x86-64/b": "../../usr/../../secret", "usr/c": up + "secret",
            "boot/pc-x86-64/c": "../../usr/c",
        }
        for name, target in places.items():
            (self.tree / name).symlink_to(target)
        for _ in range(2):
            self.assertEqual(self.prepare(), [])
            self.assertEqual(os.readlink(self.tree / "boot/same"), "pc-x86-64")
            self.assertEqual(os.readlink(self.tree / "boot/pc-x86-64/dir"), "../../inner")
            tree = os.path.realpath(self.tree)
            for name in places:
                real = os.path.realpath(self.tree / name)
                self.assertTrue((real + "/").startswith(tree + "/"), (name, real))

    def test_boot_that_is_a_link(self) -> None:
        """It leads to a directory of the image."""
        shutil.rmtree(self.tree / "boot")
        (self.tree / "real/pc-x86-64").mkdir(parents=True)
        (self.tree / "boot").symlink_to("../../../real")
        (self.tree / "real/pc-x86-64/leak").symlink_to("../" * 30 + "etc")
        self.prepare()
        self.assertEqual(os.readlink(self.tree / "boot"), "real")
        self.assertEqual(os.readlink(self.tree / "real/pc-x86-64/leak"), "../../etc")

    def test_scripts_are_in_place(self) -> None:
        """All scripts are executable; walt-env holds the platform's values."""
        self.prepare()
        for directory, names in (
            ("bin", module.PUBLIC_SCRIPTS), ("bin/_walt_internal_", module.INTERNAL_SCRIPTS),
        ):
            for name in names:
                self.assertTrue(os.access(self.tree / directory / name, os.X_OK), name)
        env = (self.tree / "bin/walt-env").read_text()
        self.assertIn("export walt_server_ip='192.168.1.1'\n", env)
        self.assertIn(f"export walt_image_id='{'ab' * 32}'\n", env)
        self.assertIn("export walt_reconnect_grace='180'\n", env)
        self.assertNotIn("%(", env)

    def test_image_spec(self) -> None:
        """Templates are expanded; missing ones are warnings; the rest goes on."""
        (self.tree / "etc/walt").mkdir()
        (self.tree / "etc/walt/image.spec").write_text(
            "# comment\ntemplates: [/etc/a, /etc/missing, /etc/link]\npackages: [x]\n"
        )
        (self.tree / "etc/a").write_text("%(server_ip)s %(server_mac)s 100%% %(other)s 50%")
        (self.tree / "etc/link").symlink_to("/etc/b")
        (self.tree / "etc/b").write_text("%(walt_server_rpc_port)s")
        (warning,) = self.prepare()
        self.assertIn("/etc/missing", warning)
        self.assertEqual(
            (self.tree / "etc/a").read_text(), "192.168.1.1 52:54:00:00:00:01 100% %(other)s 50%"
        )
        self.assertEqual((self.tree / "etc/b").read_text(), "12345")

    def test_bad_specs_are_warnings(self) -> None:
        """An unreadable image.spec is told; everything else is done."""
        (self.tree / "etc/walt").mkdir()
        (self.tree / "etc/walt/image.spec").write_text("{[")
        (warning,) = self.prepare()
        self.assertIn("unreadable", warning)
        self.assertTrue((self.tree / "bin/walt-init").exists())

    def test_specs_that_grow(self) -> None:
        """Aliases, nesting and length, by which a small image.spec takes much memory or time."""
        aliases = "a0: &a [x, x]\n" + "".join(
            f"a{one}: &a [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n" for one in range(1, 8)
        )
        for text in (
            aliases + "features: {ptp: *a}\n", "a: &a {x: y}\nb: {<<: [*a, *a]}\n",
            "[" * 60_000, "{" * 60_000, "- " * 1000, "x: " + "y" * (1 << 20),
        ):
            self.assertRaises(ValueError, load_spec, text.encode())
        for text, spec in (
            ("", {}), ("# nothing\n", {}), ('{"templates": ["/etc/x"]}', {"templates": ["/etc/x"]}),
            ("a: 0001-01-01 00:00:00+23:00", {"a": "0001-01-01 00:00:00+23:00"}),
            ("a: " + "9" * 5000, {"a": "9" * 5000}), ("features:\n", {"features": ""}),
        ):
            self.assertEqual(load_spec(text.encode()), spec)

    def test_server_spec_is_copied(self) -> None:
        """The server's spec file is put into the image; unlisted features do not run."""
        (self.base / "server.spec").write_text("features: [ptp]\n")
        (self.tree / "etc/walt").mkdir()
        (self.tree / "etc/walt/image.spec").write_text('{"features": {"nbfs2": "/bin/x"}}')
        self.assertEqual(self.prepare(), [])
        self.assertEqual((self.tree / "etc/walt/server.spec").read_text(), "features: [ptp]\n")

    def test_ptp(self) -> None:
        """A configuration of ptpd2 gets hybrid mode and a delay interval of 3 at least."""
        path = self.tree / "etc/ptpd.conf"
        path.write_text("ptpengine:interface = eth0\nptpengine:log_delayreq_interval = 0\n")
        self.prepare()
        self.assertEqual(
            path.read_text(),
            "ptpengine:interface = eth0\nptpengine:log_delayreq_interval = 3\n"
            "\nptpengine:ip_mode = hybrid\n".replace("\n\n", "\n"),
        )
        path.write_text("ptpengine:ip_mode=multicast\nptpengine:log_delayreq_interval=5\n")
        self.prepare()
        self.assertEqual(
            path.read_text(), "ptpengine:ip_mode=hybrid\nptpengine:log_delayreq_interval=5\n"
        )

    def test_timezone(self) -> None:
        """That of the server, where the image knows it and has none of its own."""
        ours, theirs = self.base / "localtime", self.tree / "etc/localtime"
        self.patch(module, "LOCALTIME", str(ours))
        self.prepare()
        self.assertFalse(theirs.is_symlink())
        ours.symlink_to("../usr/share/zoneinfo/Europe/Paris")
        self.prepare()
        self.assertFalse(theirs.is_symlink())
        zone = self.tree / "usr/share/zoneinfo/Europe/Paris"
        zone.parent.mkdir(parents=True)
        zone.touch()
        theirs.symlink_to("/usr/share/zoneinfo/UTC")
        self.prepare()
        self.assertEqual(os.readlink(theirs), "/usr/share/zoneinfo/Europe/Paris")
        theirs.unlink()
        theirs.write_text("its own")
        self.prepare()
        self.assertEqual(theirs.read_text(), "its own")

    def test_an_odd_image_still_gets_most(self) -> None:
        """A directory where a file belongs is one warning, not the end."""
        (self.tree / "etc/hosts").mkdir()
        warnings = self.prepare()
        self.assertEqual(len(warnings), 1)
        self.assertTrue((self.tree / "bin/_walt_internal_/walt-net-service").exists())


class ExpandTests(SynchronousTestCase):
    @given(st.binary())
    def test_any_text_is_accepted(self, text: bytes) -> None:
        """Stray percent signs and unknown names stay; nothing raises."""
        expand(text, {})

    @given(st.text(alphabet=st.characters(blacklist_characters="%", codec="utf-8")))
    def test_text_without_percent_is_unchanged(self, text: str) -> None:
        """Only placeholders change."""
        self.assertEqual(expand(text.encode(), {"a": "b"}), text.encode())
