"""What an image brings is run by the server: it must not get out of the image's tree."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.system.live import LivePlatform, why_not
from tests.system.netns import short_dir
from walt.common.errors import CommandFailed
from walt.server.adapters.podman import overlay, sandbox
from walt.server.adapters.podman.options import Storage

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


class SandboxTests(SynchronousTestCase):
    """Commands of a tree that has busybox alone."""

    skip = None if os.geteuid() == 0 and shutil.which("bwrap") else "needs root and bubblewrap"

    def setUp(self) -> None:
        self.base = short_dir(self)
        self.tree = self.base / "tree"
        (self.tree / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", self.tree / "bin/busybox")
        for name in ("sh", "cat", "mount", "mknod", "chroot", "ls", "id", "touch", "chmod", "ip",
                     "sleep"):
            (self.tree / "bin" / name).symlink_to("busybox")

    def run_inside(self, command: str, timeout: float = 20.0) -> tuple[int, str]:
        """Return the status and the words of a command."""
        return sandbox.run(self.tree, command, timeout)

    def test_it_works(self) -> None:
        """Root of the image changes the image, with the system's directories in place."""
        self.assertEqual(
            self.run_inside("touch /made && chmod 4755 /made && id -u && cat /proc/self/comm"
                            " && ls /dev/null && echo $PATH"),
            (0, f"0\ncat\n/dev/null\n{sandbox.PATH}\n"),
        )
        self.assertTrue((self.tree / "made").exists())
        self.assertEqual(self.run_inside("exit 3")[0], 3)

    def test_ways_out(self) -> None:
        """Devices, mounts, settings of the kernel, other processes, networks: none."""
        before = CORE_PATTERN.read_text()
        self.addCleanup(lambda: CORE_PATTERN.read_text() == before
                        or CORE_PATTERN.write_text(before))
        secret = self.base / "secret"
        secret.write_text("of the server")
        (self.tree / "mnt").mkdir()
        for attack in (
            "mknod /disk b 254 0 && cat /disk", "mknod /memory c 1 1",
            "mount -t proc proc /mnt", "mount -t tmpfs tmpfs /mnt",
            "chroot / id",
            f"echo '|/x' > {CORE_PATTERN}", "echo b > /proc/sysrq-trigger",
            f"cat /proc/1/root{secret}", f"cat /proc/1/cwd/{'../' * 20}{secret}",
            f"kill -0 {os.getpid()}",
        ):
            status, words = self.run_inside(attack)
            self.assertNotEqual(status, 0, (attack, words))
            self.assertNotIn("of the server", words)
        self.assertEqual(CORE_PATTERN.read_text(), before)
        _, words = self.run_inside("cat /proc/net/dev /proc/self/status; ls -d /proc/[0-9]*")
        self.assertNotIn("eth", words)
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
            self.assertIn(line, words)
        self.assertLess(words.count("/proc/"), 6)

    def test_links(self) -> None:
        """Directories that the sandbox mounts on lead nowhere else."""
        outside = self.base / "outside"
        outside.mkdir()
        for name in ("proc", "dev"):
            (self.tree / name).symlink_to(f"../../../../oldroot{outside}/made-{name}")
            self.assertRaises(CommandFailed, self.run_inside, "id")
            (self.tree / name).unlink()
        self.assertEqual(list(outside.iterdir()), [])

    def test_limits(self) -> None:
        """A command has an end, and not all memory."""
        self.assertRaises(CommandFailed, self.run_inside, "while :; do :; done", timeout=1.0)
        status, _ = self.run_inside("x=xxxxxxxx; while :; do x=$x$x; done")
        self.assertNotEqual(status, 0)

    def test_all_together(self) -> None:
        """Many processes, large ones together, words without end: it is ended for each."""
        for number, attack in (
            (20, "for one in 1 2 3 4 5; do for two in 1 2 3 4 5; do sleep 30 & done; done; wait"),
            (256, "x=xxxxxxxxxxxxxxxx; for one in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"
                  " 19 20; do x=$x$x; done; sleep 30 & sleep 30; wait"),
            (256, "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"),
        ):
            for name, value in (
                ("MAX_PROCESSES", number), ("MAX_MEMORY", 16 << 20), ("MAX_OUTPUT", 1 << 20),
            ):
                self.patch(sandbox, name, value)
            self.assertRaisesRegex(CommandFailed, "^its command (started|took|wrote) more than",
                                   self.run_inside, attack)
        self.assertEqual(self.run_inside("sleep 1 & sleep 1; echo over"), (0, "over\n"))


class MountedImageTests(TestCase):
    """An image on a live platform, looked at by an account of the server's machine."""

    skip = why_not()
    timeout = 240

    async def test_an_account_of_the_machine(self) -> None:
        """Set-user-id programs and devices that an image brings are not usable."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        (platform.base / "server.spec").write_text("features: [ptp]\n")
        await platform.import_image()
        await platform.add_image("alice/trap", {
            "/etc/walt/image.spec":
                "features:\n  ptp: cp /bin/busybox /etc/id; chmod 4755 /etc/id;"
                " mknod /etc/disk b 254 0; cd /boot/pc-x86-64;"
                f" ln -s {'../' * 9}services/dhcpd/dhcpd.conf leak; ln -s /etc absolute;"
                " touch /boot/made; echo done\n",
        })
        await platform.start()
        await platform.event(
            "commit", "", "walt.node.pc-x86-64", "192.168.181.31", "02:00:00:00:00:01", "", "0",
            "unknown",
        )

        async def boots_it() -> bool:
            told = await platform.walt("node", "boot", "node-000001", "trap")
            return b"will now boot" in told.stdout

        await platform.until(boots_it, "the node is there", 20)

        async def mounted() -> list[Path]:
            return list(platform.state.glob("images/*/fs/etc/id"))

        (trap,) = await platform.until(mounted, "the image is mounted", 30)
        await platform.begins_to_boot("192.168.181.31")
        tree = trap.parents[1]
        for name in ("pc-x86-64/leak", "pc-x86-64/absolute", "made"):
            self.assertFalse(os.path.lexists(tree / "boot" / name), name)  # TFTP may be reading
        self.assertFalse((trap.parent / "disk").exists())
        place = trap.parents[2]
        flags = next(
            line.split()[5] for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4] == str(place / "fs")
        )
        self.assertLessEqual({"nosuid", "nodev"}, set(flags.split(",")))
        as_nobody = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--")
        done = await platform.runner.run([*as_nobody, str(trap), "-u"])
        self.assertNotEqual(done.stdout.strip(), b"0")
        for hidden in (
            place / overlay.CHANGES, platform.state / "containers" / "storage",
            platform.state / "nodes" / "02:00:00:00:00:01" / "persist_dirs",
        ):
            done = await platform.runner.run([*as_nobody, "ls", str(hidden)], check=False)
            self.assertIn(b"ermission denied", done.stderr, hidden)


START = "bin/walt-image-shell-start"
STOP = "bin/walt-image-shell-shutdown"
MOUNT = (
    "/bin/busybox mkdir -p /mnt;"
    " /bin/busybox mount -t tmpfs none /mnt && echo 'it could mount' >> /evil.ran\n"
)
# What begins before the person does, and replaces what the server may use inside.
IMAGES: dict[str, dict[str, str]] = {
    "covered": {
        "etc": "->xetc", "xetc/hostname": "node",
        START: "#!/bin/sh\nB=/bin/busybox; $B rm /etc; $B mkdir /etc;"
               " $B ln -s /proc/sys /etc/hostname; exec $B sleep 1000\n",
    },
    "helper": {
        "run": "->xrun", "xrun/none": "", "evil": f"#!/bin/sh\n{MOUNT}",
        START: "#!/bin/sh\nB=/bin/busybox; $B rm /run; $B mkdir /run;"
               " $B cp /evil /run/busybox-walt; exec $B sleep 1000\n",
    },
    # No program is needed for these: links that lead elsewhere once the image is mounted.
    "linked": {"etc/hostname": "->/proc/sys", START: "#!/bin/sh\nexec /bin/busybox sleep 1000\n"},
    "deep": {
        "run": "->proc/1/root/x", "proc/1/root/x/none": "",
        "x/busybox-walt": f'#!/bin/sh\n{MOUNT}exec /bin/busybox "$@"\n',
        START: "#!/bin/sh\nexec /bin/busybox sleep 1000\n",
    },
}
TYPED = (
    b"B=/bin/busybox; $B cat /evil.ran; v=$($B cat /proc/sys/kernel/core_pattern);"
    b" echo \"$v\" > /proc/sys/kernel/core_pattern && echo \"it could\" write; exit\n"
)


class ShellTests(TestCase):
    """Image shells, whose images start programs of their own before the person does."""

    skip = why_not()
    timeout = 300

    async def test_programs_of_an_image_get_nothing_of_the_server(self) -> None:
        """The server starts nothing that lies in the image, and undoes no mount but its own."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        storage = Storage.private(platform.state, platform.runtime)
        busybox = Path("/bin/busybox").read_bytes()
        for name, files in IMAGES.items():
            archive = platform.base / f"{name}.tar"
            with tarfile.open(archive, "w") as tar:
                for path, text in {"bin/busybox": busybox, "bin/sh": busybox, STOP: "#!/bin/sh\n",
                                   **files}.items():
                    member = tarfile.TarInfo(path)
                    member.mode = 0o755
                    data = text.encode() if isinstance(text, str) else text
                    if data.startswith(b"->"):
                        member.type, member.linkname = tarfile.SYMTYPE, data[2:].decode()
                        tar.addfile(member)
                    else:
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
            await platform.runner.run(storage.podman(
                "import", "--quiet", "--change", "LABEL walt.node.models=pc-x86-64",
                str(archive), f"docker.io/alice/{name}",
            ), timeout=100)
        await platform.start()
        for name in IMAGES:
            told = await platform.walt("image", "shell", name, stdin=TYPED)
            words = told.stdout.decode() + told.stderr.decode()
            self.assertNotIn("it could", words, name)
