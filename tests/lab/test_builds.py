"""Builds and image shells with cgroup 2 alone, under systemd, by crun and by runc.

What tests.attacks.test_a_builds tries on a machine of tests, on one of Debian's own.
"""

from __future__ import annotations

import io
import itertools
import re
import shlex
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.attacks.test_a_builds import ATTACKS, LISTENER, OUTSIDE, PERL, PORT, WEB, WORDS
from tests.lab.box import NET, SERVER
from tests.lab.installed import SETUP, installed, why_not
from tests.patience import patient
from tests.system.storage import archive, with_busybox
from walt.server.adapters.podman.options import Storage

BESIDE = "203.0.113.1"
NODE = f"{NET}.61"
INNER = (SERVER, NODE, BESIDE, "127.0.0.1", "fd00:77::1")
STATE = Path("/var/lib/walt")
STORAGE = Storage.private(STATE, Path("/run/walt"))
SCENE = f"""
ip netns add outside && ip netns add node
ip link add beside type veth peer name eth0 netns outside
ip address add {BESIDE}/24 dev beside && ip address add fd00:77::1/64 dev beside nodad
ip link set beside up
ip -n outside address add {OUTSIDE}/24 dev eth0 && ip -n outside link set eth0 up
ip link set eth2 netns node
ip -n node address add {NODE}/24 dev eth2 && ip -n node link set eth2 up
echo 'of the server' > {STATE}/secret
"""


class BuildTests(TestCase):
    skip = why_not()
    timeout = patient(1200)

    async def test_ways_out(self) -> None:
        """Ways out of a container, towards the server, and what remains possible."""
        from twisted.internet import reactor

        self.numbers = itertools.count()
        self.box = box = await installed(reactor)
        self.addCleanup(box.close)
        await box.start()
        await box.until_active()
        self.assertEqual((await box.run("stat -f -c %T /sys/fs/cgroup")).strip(), "cgroup2fs")
        await box.run(f"set -e\n{SCENE}")
        await self.spawn("outside", "ip netns exec outside ", WEB, OUTSIDE)
        await self.spawn("machine", "", LISTENER)
        await self.spawn("node", "ip netns exec node ", LISTENER)
        await self.import_tools()
        for number, address in enumerate(INNER, 1):  # so they do listen

            async def connects(address: str = address) -> bool:
                done = await box.try_to(f"curl -s -m 5 http://{with_brackets(address)}:{PORT}/")
                return b"words of the server" in done.stdout

            await box.until(connects, f"{address} answers", patient(30))
            await box.until(self.counted(number), "it was counted", patient(30))
        runtimes = ("crun", "runc")
        for runtime, other in (runtimes, runtimes[::-1]):
            await box.run(f"{SETUP} --mode image-install --set images.runtime={runtime}",
                          timeout=patient(200))
            # So that it is this one that runs.
            await box.run(f"chmod 755 $(which {runtime}) && chmod 0 /usr/*bin/{other}"
                          " && systemctl restart walt-server", timeout=patient(150))
            await box.until_active()
            await self.in_a_build()
            await self.in_a_shell()
            self.assertTrue(await self.counted(len(INNER))(), runtime)
            await self.nothing_left()
            await box.run(f"chmod 755 /usr/*bin/{other}")

    def counted(self, number: int) -> Callable[[], Awaitable[bool]]:
        """Return what tells whether so many connections reached the machine and the node."""

        async def same() -> bool:
            told = await self.box.run(
                "journalctl -b -o cat -u machine -u node | grep -c '^connected' || true"
            )
            return int(told) == number

        return same

    async def spawn(self, unit: str, enter: str, code: str, *words: str) -> None:
        """Run a Python program as a unit of its own."""
        python = f"{enter}python3 -u -c {shlex.quote(code)} {shlex.join(words)}"
        await self.box.run(f"systemd-run --quiet --unit={unit} {python}")

    async def import_tools(self) -> None:
        """Put an image with a busybox and perl into the store."""
        found = subprocess.run(["ldd", PERL], capture_output=True, text=True, check=True)
        libraries = re.findall(r"(/\S+) \(0x", found.stdout)
        files = with_busybox(**{
            path.lstrip("/"): Path(path).read_bytes() for path in (PERL, *libraries)
        })
        await self.box.put("/root/tools.tar", archive(files))
        await self.box.run(
            shlex.join(STORAGE.podman(
                "import", "-q", "--change", "LABEL walt.node.models=pc-x86-64",
                "/root/tools.tar", "docker.io/alice/tools",
            )), timeout=patient(100),
        )

    async def build(self, recipe: str, **files: str) -> tuple[int, str]:
        """Build as a user; return the status and what was told."""
        number = next(self.numbers)
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            for name, text in {"Dockerfile": recipe, **files}.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
        place = f"/root/context-{number}"
        await self.box.run(f"mkdir {place} && tar -x -C {place}", stdin=context.getvalue())
        done = await self.box.walt("image", "build", "--from-dir", place, f"made-{number}")
        return done.status, (done.stdout + done.stderr).decode(errors="replace")

    async def attack(self) -> str:
        """Return the command of the attacks."""
        pid = await self.box.run("systemctl show --property MainPID --value walt-server")
        device = await self.box.run(f"stat --format %d {STATE}")
        addresses = (*INNER, "198.19.255.2", "198.19.255.3", "10.0.2.2", "0.0.0.0", "127.7.7.7")
        return f"perl /attacks {pid.strip()} {STATE} {device.strip()} {' '.join(addresses)}"

    async def in_a_build(self) -> None:
        """RUN: the file system, the kernel, processes, the network."""
        before = await self.box.run("cat /proc/sys/kernel/core_pattern")
        status, told = await self.build(
            f"FROM tools\nCOPY attacks /attacks\nRUN {await self.attack()}\n"
            f"RUN busybox nslookup -type=a walt-server.walt {SERVER} || true\n"
            f"RUN busybox wget -q -O - http://{OUTSIDE}:{PORT}/; echo;"
            " busybox grep Cap /proc/self/status; busybox cat /proc/self/cgroup\n",
            attacks=ATTACKS,
        )
        self.assertEqual(status, 0, told)
        self.assertNotIn("HAD", told)
        self.assertEqual(await self.box.run("cat /proc/sys/kernel/core_pattern"), before)
        self.assertEqual(await self.box.run(f"ls {STATE}/mark 2>/dev/null || true"), "")
        self.assertNotIn("words of the server", told)
        self.assertNotIn("Name:", told)
        self.assertEqual(told.count(WORDS), 1, told)
        (bounding,) = re.findall(r"CapBnd:\s+(\w+)", told)
        # net_admin, net_raw, sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, mknod
        for number in (12, 13, 16, 17, 19, 21, 22, 27):
            self.assertFalse(int(bounding, 16) >> number & 1, (number, bounding))

    async def in_a_shell(self) -> None:
        """The same attacks, by somebody who has a shell in a container of an image."""
        typed = (
            f"busybox cat > /attacks <<'END'\n{ATTACKS}\nEND\n{await self.attack()}\n"
            f"busybox wget -q -O - http://{OUTSIDE}:{PORT}/; echo; exit\n"
        )
        done = await self.box.walt("image", "shell", "tools", stdin=typed.encode())
        told = (done.stdout + done.stderr).decode(errors="replace")
        self.assertNotIn("HAD", told)
        self.assertEqual(told.count(WORDS), 1, told)
        self.assertEqual(await self.box.run(f"ls {STATE}/mark 2>/dev/null || true"), "")

    async def nothing_left(self) -> None:
        """Containers, their control groups and their mounts have gone."""
        listed = shlex.join(STORAGE.podman("ps", "--all", "--external", "--quiet"))
        for what in (listed, "find /sys/fs/cgroup -name '*buildah*' -o -name 'libpod*'",
                     "pgrep -a conmon || true"):
            self.assertEqual(await self.box.run(what), "", what)


def with_brackets(address: str) -> str:
    """Return an address as it is in links."""
    return f"[{address}]" if ":" in address else address
