"""A build runs what its recipe says, as root: it reaches the outside and nothing of the server.

The server lives in a namespace that the test made, which is the whole machine: its loopback
is the one a build would reach. Two more namespaces stand for a node and for the outside.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, Program, why_not
from tests.system.netns import Namespace, join
from tests.system.storage import archive, with_busybox
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.surroundings import CHROOT_WARNING

PERL = "/usr/bin/perl"  # essential in Debian: programs that busybox has not, in one file
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
OUTSIDE, BESIDE, WORDS = "203.0.113.2", "203.0.113.1", "words of the outside"
PORT = 7777
# Listens in a namespace for every address it has; tells each connection on a line.
LISTENER = """
import socket, sys
one = socket.create_server(("::", 7777), family=socket.AF_INET6, dualstack_ipv6=True)
print("listens", flush=True)
while True:
    other = one.accept()[0]
    other.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nwords of the server")
    other.close()
    print("connected", flush=True)
"""
WEB = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"words of the outside")
http.server.HTTPServer((sys.argv[1], 7777), Answer).serve_forever()
"""
# Connects to each address; prints those that answered.
CONNECT = """
import json, socket, sys
had = []
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 7777), 5).close()
        had.append(address)
    except OSError:
        pass
print(json.dumps(had))
"""
# Each attack prints its name when it succeeds. Numbers are those of x86-64's system calls.
ATTACKS = r"""
my ($pid, $base, $device, @addresses) = @ARGV;
sub had { my ($name, $done) = @_; print "HAD $name\n" if $done; }
sub written { my ($path, $text, $how) = @_; open(my $f, $how || ">", $path) or return 0;
              print $f $text; return close($f); }
sub readable { my ($path) = @_; open(my $f, "<", $path) or return 0;
               return defined(read($f, my $data, 16)); }
sub listed { my ($path) = @_; opendir(my $d, $path) or return (); return readdir($d); }
had("kill", kill(0, $pid));
had("ptrace", syscall(101, 16, $pid + 0, 0, 0) == 0);
had("core_pattern", written("/proc/sys/kernel/core_pattern", "|/x"));
had("sysrq", written("/proc/sysrq-trigger", "h"));
had("root of 1", readable("/proc/1/root$base/secret"));
for my $group (listed("/sys/fs/cgroup")) {
    had("agent of $group", written("/sys/fs/cgroup/$group/release_agent", "/x", "+<"));
}
had("sys", written("/sys/kernel/uevent_helper", "/x"));
my $path = "/disk";
had("mknod", syscall(133, $path, 0060600, $device + 0) == 0 && readable($path));
my ($devices, $type, $none, $place) = ("devtmpfs", "tmpfs", "none", "/tmp");
had("devtmpfs", syscall(165, $none, $place, $devices, 0, 0) == 0);
had("mount", syscall(165, $none, $place, $type, 0, 0) == 0);
for my $disk (grep { /^(vd|sd|nvme|loop|mem|kmem)/ } listed("/dev")) {
    had("device $disk", readable("/dev/$disk"));
}
had("module", syscall(175, $none, 0, $none) == 0);
mkdir "/e"; mkdir "/e/deep";
if (my $child = fork()) { waitpid($child, 0); } else {
    exit 1 if !chroot("/e");
    chdir("..") for 1 .. 64;
    chroot(".");
    had("chroot", written("$base/mark", "x") || readable("$base/secret"));
    exit 0;
}
$SIG{ALRM} = sub {};
for my $address (@addresses) {
    my $six = pack("S n N H32 N", 10, 7777, 0, "fd000077000000000000000000000001", 0);
    my $where = $address =~ /:/ ? $six : pack("S n C4 x8", 2, 7777, split(/\./, $address));
    socket(my $s, $address =~ /:/ ? 10 : 2, 1, 6) or next;
    syscall(37, 5);  # alarm
    had("connection to $address", connect($s, $where));
    syscall(37, 0);
}
if (my $child = fork()) { waitpid($child, 0); } else {
    if (syscall(272, 0x10020000) == 0) {  # unshare: users and mounts
        chroot("/e"); chdir("..") for 1 .. 64; chroot(".");
        had("users", written("$base/mark", "x") || readable("$base/secret"));
    }
    exit 0;
}
"""


class BuildTests(TestCase):
    skip = why_not()
    timeout = patient(240)

    async def test_attacks(self) -> None:
        """Ways out of a container, towards the server, and what remains possible."""
        from twisted.internet import reactor

        self.numbers = itertools.count()
        machine, node, outside = Namespace(self), Namespace(self), Namespace(self)
        self.platform = platform = LivePlatform(reactor, own_namespace=False)
        platform.namespace = machine.name
        self.addCleanup(platform.close)
        await self.import_tools()
        (platform.base / "secret").write_text("of the server")
        join(machine, "beside", outside, "eth0")
        machine.run("ip", "address", "add", f"{BESIDE}/24", "dev", "beside")
        machine.run("ip", "address", "add", "fd00:77::1/64", "dev", "beside", "nodad")
        outside.run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "eth0")
        await platform.start()
        join(machine, "node", node, "eth0")
        machine.run("ip", "link", "set", "node", "master", "walt-net")
        self.node = f"{platform.net}.61"
        node.run("ip", "address", "add", f"{self.node}/24", "dev", "eth0")
        self.listeners = [await self.listen(machine), await self.listen(node)]
        self.spawn(outside, WEB, OUTSIDE)
        inner = [f"{platform.net}.1", self.node, BESIDE, "127.0.0.1", "fd00:77::1"]
        reached = machine.run(sys.executable, "-c", CONNECT, *inner)
        self.assertEqual(json.loads(reached), inner)  # so it does listen
        await platform.until(lambda: succeed(self.connections() == 5), "all were accepted", 10)
        await self.ways_out(inner)
        await self.podman_itself()
        await self.through_podman()
        await self.in_a_shell(inner)
        # The names of namespaces are shared by all: nothing that ended has taken them away.
        await platform.runner.run(
            ["nsenter", f"--net=/run/netns/{platform.namespace}", "--", "true"]
        )
        self.assertEqual(self.connections(), 5)

    async def in_a_shell(self, inner: list[str]) -> None:
        """The same attacks, by somebody who has a shell in a container of an image."""
        platform = self.platform
        device = os.stat(platform.base).st_dev
        typed = (
            f"cat > /attacks <<'END'\n{ATTACKS}\nEND\n"
            f"perl /attacks {platform.pid} {platform.base} {device} {' '.join(inner)}\n"
            f"busybox wget -q -O - http://{OUTSIDE}:{PORT}/; echo; exit\n"
        ).replace("cat >", "busybox cat >")
        done = await platform.walt("image", "shell", "tools", stdin=typed.encode())
        told = (done.stdout + done.stderr).decode()
        self.assertNotIn("HAD", told)
        self.assertEqual(told.count(WORDS), 1, told)
        self.assertFalse((platform.base / "mark").exists())

    async def test_chroot_when_told(self) -> None:
        """Without containers, each build has its warning; the classic ways out are shut, too."""
        from twisted.internet import reactor

        self.numbers = itertools.count()
        self.platform = platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        platform.write_config("images:\n  build-isolation: chroot\n")
        await self.import_tools()
        (platform.base / "secret").write_text("of the server")
        await platform.start()
        device = os.stat(platform.base).st_dev
        status, told = await self.build(
            "FROM tools\nCOPY attacks /attacks\n"
            f"RUN perl /attacks {platform.pid} {platform.base} {device}\n", attacks=ATTACKS,
        )
        self.assertEqual(status, 0, told)
        self.assertIn(CHROOT_WARNING, told)
        for name in ("chroot", "users", "mknod", "ptrace", "kill", "root of 1"):
            self.assertNotIn(f"HAD {name}", told)
        self.assertFalse((platform.base / "mark").exists())

    async def import_tools(self) -> None:
        """Put an image with a busybox and perl into the store."""
        found = subprocess.run(["ldd", PERL], capture_output=True, text=True, check=True)
        libraries = re.findall(r"(/\S+) \(0x", found.stdout)
        files = with_busybox(**{
            path.lstrip("/"): Path(path).read_bytes() for path in (PERL, *libraries)
        })
        tree = self.platform.base / "tools.tar"
        tree.write_bytes(archive(files))
        await self.platform.runner.run(
            Storage.private(self.platform.state, self.platform.runtime).podman(
                "import", "-q", "--change", "LABEL walt.node.models=pc-x86-64", str(tree),
                "docker.io/alice/tools",
            )
        )

    def spawn(self, namespace: Namespace, code: str, *words: str) -> Program:
        """Run a Python program in a namespace until the test ends."""
        program = Program()
        argv = namespace.command(sys.executable, "-u", "-c", code, *words)
        transport = self.platform.reactor.spawnProcess(program, argv[0], argv, os.environ)

        def end() -> Deferred[int | None]:
            if not program.ended.called:
                transport.signalProcess("KILL")
            return program.ended

        self.addCleanup(end)
        return program

    async def listen(self, namespace: Namespace) -> Program:
        """Start a listener, wait for it."""
        program = self.spawn(namespace, LISTENER)
        await self.platform.until(lambda: succeed(b"listens" in program.out), "it listens", 20)
        return program

    def connections(self) -> int:
        """Return how many connections reached the machine and the node."""
        return sum(one.out.count(b"connected") for one in self.listeners)

    async def build(self, recipe: str, **files: str) -> tuple[int, str]:
        """Build as a user; return the status and what was told."""
        context = Path(self.mktemp()).resolve()
        context.mkdir()
        for name, text in {"Dockerfile": recipe, **files}.items():
            (context / name).write_text(text)
        name = f"made-{next(self.numbers)}"
        done = await self.platform.walt("image", "build", "--from-dir", str(context), name)
        return done.status, (done.stdout + done.stderr).decode()

    async def ways_out(self, inner: list[str]) -> None:
        """RUN: the file system, the kernel, processes, the network."""
        before = CORE_PATTERN.read_text()
        self.addCleanup(lambda: CORE_PATTERN.read_text() == before
                        or CORE_PATTERN.write_text(before))
        base, device = self.platform.base, os.stat(self.platform.base).st_dev
        addresses = (*inner, "198.19.255.2", "198.19.255.3", "10.0.2.2", "0.0.0.0", "127.7.7.7")
        status, told = await self.build(
            "FROM tools\nCOPY attacks /attacks\n"
            f"RUN perl /attacks {self.platform.pid} {base} {device} {' '.join(addresses)}\n"
            f"RUN busybox nslookup -type=a walt-server.walt {self.platform.net}.1 || true\n"
            f"RUN busybox wget -q -O - http://{OUTSIDE}:{PORT}/; echo; grep Cap /proc/self/status\n"
            .replace("grep", "busybox grep"),
            attacks=ATTACKS,
        )
        self.assertEqual(status, 0, told)
        self.assertNotIn("HAD", told)
        self.assertEqual(CORE_PATTERN.read_text(), before)
        self.assertFalse((base / "mark").exists())
        self.assertNotIn("words of the server", told)
        self.assertNotIn("Name:", told)
        self.assertEqual(told.count(WORDS), 1)
        (bounding,) = re.findall(r"CapBnd:\s+(\w+)", told)
        # net_admin, net_raw, sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, mknod
        for number in (12, 13, 16, 17, 19, 21, 22, 27):
            self.assertFalse(int(bounding, 16) >> number & 1, (number, bounding))

    async def through_podman(self) -> None:
        """What podman and its runtime do as root, for a tree whose links lead elsewhere."""
        platform, base = self.platform, self.platform.base
        there = base / "there"
        there.mkdir()
        (there / "secret").write_text("of the server")
        podman = Storage.private(platform.state, platform.runtime).podman
        up = f"{'../' * 12}{str(there).lstrip('/')}"
        for name, trigger in (
            ("cached", f"RUN --mount=type=cache,id={up},target=/host"
                       " busybox cat /host/secret; busybox touch /host/mark"),
            ("bound", "RUN --mount=type=bind,source=link,target=/host,rw"
                      " busybox cat /host/secret; busybox touch /host/mark"),
        ):
            context = base / name
            context.mkdir()
            (context / "Dockerfile").write_text(f"FROM docker.io/alice/tools\nONBUILD {trigger}\n")
            await platform.runner.run(podman(
                "build", "--format", "docker", "--isolation", "chroot", "--layers=false",
                "--pull=never", "-t", f"docker.io/alice/{name}", str(context),
            ), timeout=100)
        tree = base / "linked.tar"
        with tarfile.open(tree, "w") as tar:
            for name, target in (("dev", str(there)), ("l", str(there))):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
            tar.add("/bin/busybox", "bin/busybox")
            tar.add("/bin/busybox", "bin/sh")
        await platform.runner.run(podman(
            "import", "-q", "--change", "LABEL walt.node.models=pc-x86-64", str(tree),
            "docker.io/alice/linked",
        ))
        await platform.ok("image", "show", "--refresh")
        for recipe in (
            "FROM cached\nRUN true\n", "FROM bound\nRUN true\n", "FROM linked\nRUN true\n",
            "FROM linked\nWORKDIR /l/made\nRUN true\n",
        ):
            context = Path(self.mktemp()).resolve()
            context.mkdir()
            (context / "Dockerfile").write_text(recipe)
            (context / "link").symlink_to(there)
            done = await platform.walt(
                "image", "build", "--from-dir", str(context), f"made-{next(self.numbers)}"
            )
            told = (done.stdout + done.stderr).decode()
            self.assertNotIn("of the server", told, recipe)
            self.assertEqual([one.name for one in there.iterdir()], ["secret"], (recipe, told))
        for words in (("shell", "linked"), ("cp", "linked:/bin/busybox", str(base / "copy"))):
            await platform.walt("image", *words, stdin=b"exit\n")
            self.assertEqual([one.name for one in there.iterdir()], ["secret"], words)

    async def podman_itself(self) -> None:
        """ADD and FROM: addresses and files of the server."""
        place = self.platform.base / "directory"
        place.mkdir()
        podman: Any = Storage.private(self.platform.state, self.platform.runtime).podman
        await self.platform.runner.run(
            podman("save", "--format", "docker-dir", "-o", str(place), "alice/tools")
        )
        for recipe in (
            f"FROM tools\nADD http://127.0.0.1:{PORT}/ /x\n",
            f"FROM tools\nADD http://{BESIDE}:{PORT}/ /x\n",
            f"FROM 127.0.0.1:{PORT}/a/b\n", f"FROM {self.platform.net}.1:{PORT}/a/b\n",
            f"FROM dir:{place}\nRUN true\n", f"ARG KIND=dir\nFROM $KIND:{place}\nRUN true\n",
        ):
            status, told = await self.build(recipe)
            self.assertEqual(status, 1, (recipe, told))
            self.assertIn("the build failed", told)
        status, told = await self.build(f"FROM tools\nADD http://{OUTSIDE}:{PORT}/ /x\n")
        self.assertEqual(status, 0, told)
