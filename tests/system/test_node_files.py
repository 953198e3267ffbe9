"""Files of nodes and ports of nodes, through the walt command, on booted virtual nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.patience import patient, within
from tests.system.live import LivePlatform, Program, why_not
from tests.system.load import Load

Started = Any
UNREACHABLE = 255
KEPT = " -- exec sh"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class NodeFilesTests(TestCase):
    skip = why_not()
    timeout = patient(400)

    async def test_files_and_ports(self) -> None:
        """Two nodes at once: cp, save, booted-image, expose, and what goes wrong meanwhile."""
        from twisted.internet import reactor

        self.platform = LivePlatform(reactor)
        self.addCleanup(self.platform.close)
        self.here = Path(self.mktemp())
        self.here.mkdir()
        await self.platform.import_image()
        await self.platform.start()
        for name in ("vnode1", "vnode2"):
            await self.platform.ok("node", "create", name)
            await self.platform.ok("node", "config", name, "boot.delay=0")
        await self.wait("vnode1,vnode2")
        await self._copies()
        await self._questions()
        await self._expose()
        await self._clients_killed()
        await self._save()
        await self._booted_image()
        await self._node_hangs()
        await self._questions_about_images()
        await self.completes("NODE_CP_SRC", "vnode1:/pro", ["vnode1:/proc/a", "vnode1:/proc/b"])
        self.assertEqual(len(self._kept()), 1)
        await self.platform.ok("node", "remove", "--force", "vnode1")
        await self.until(lambda: self._kept() == [], "the shell went with its node")
        self.assertEqual(await self.platform.stop(), 0)
        self.assertEqual(self.platform.left_overs(), [])

    async def wait(self, nodes: str) -> None:
        await self.platform.ok("node", "wait", *within(150), nodes)

    async def run_on(self, node: str, command: str) -> str:
        return await self.platform.ok("node", "run", node, "--", command)

    def spawn(self, *words: str, terminal: bool = False) -> Started:
        """Start a `walt` process."""
        program: Any = Program()
        self.platform.reactor.spawnProcess(
            program, sys.executable, [sys.executable, "-m", "walt.client.main", *words],
            {**os.environ, **self.platform.environment(), "TERM": "xterm"}, usePTY=terminal,
        )
        return program

    async def until(self, condition: Any, what: str) -> None:
        async def check() -> bool:
            return bool(condition())

        await self.platform.until(check, what)

    async def _copies(self) -> None:
        """Both nodes at once, both ways, files and trees, whole."""
        tree = self.here / "tree"
        (tree / "sub").mkdir(parents=True)
        data = os.urandom(3 << 20)
        (tree / "sub" / "data").write_bytes(data)
        (tree / "link").symlink_to("sub/data")
        (tree / "run").write_text("#!/bin/sh\necho it runs\n")
        (tree / "run").chmod(0o755)
        for path in ("", "sub", "sub/data", "run"):
            os.chown(tree / path, 4321, 4321)

        async def there_and_back(node: str) -> None:
            ok = self.platform.ok
            await ok("node", "cp", str(tree), f"{node}:")
            self.assertEqual(await self.run_on(node, "./tree/run"), "it runs\n")
            self.assertEqual(
                await self.run_on(
                    node, "readlink tree/link; find tree -exec stat -c %u:%g {} + | sort -u"
                ),
                "sub/data\n0:0\n",
            )
            await ok("node", "cp", f"{node}:tree/sub/data", str(self.here / node))
            self.assertEqual((self.here / node).read_bytes(), data)
            await ok("node", "cp", f"{node}:/root/tree", str(self.here / f"{node}-tree"))
            self.assertEqual(os.readlink(self.here / f"{node}-tree" / "link"), "sub/data")

        await gatherResults(
            [Deferred.fromCoroutine(there_and_back(one)) for one in ("vnode1", "vnode2")]
        )
        await self.run_on("vnode1", "mount -t tmpfs -o size=1m none /mnt")
        full = await self.platform.walt("node", "cp", str(tree), "vnode1:/mnt")
        self.assertEqual(full.status, 1)
        self.assertIn(b"tar: ", full.stderr)
        self.assertIn("10 received", await self.platform.ok("node", "ping", "vnode1"))
        missing = await self.platform.walt("node", "cp", "vnode1:ghost", str(self.here))
        self.assertEqual(missing.status, 1)
        self.assertIn(b"/root/ghost", missing.stderr)

    async def complete(self, kind: str, partial: str, *words: str) -> list[str]:
        """Return candidates for a word of a command line, as shells do."""
        client = await Load(self.platform).connect()
        await client.call("hello", program="test", version="1", protocol="1", username="alice")
        answer = await client.call(
            "cs.server.complete", kind=kind, words=json.dumps(words), partial=partial
        )
        Load.close(client)
        found: list[str] = json.loads(answer[b"candidates"])
        return found

    async def completes(
        self, kind: str, partial: str, expected: list[str], *words: str
    ) -> None:
        """Check candidates that may come too late the first time: a shell is opened for them."""
        answers: list[list[str]] = [[]]

        async def answered() -> bool:
            answers[0] = await self.complete(kind, partial, *words)
            return answers[0] != []

        await self.platform.until(answered, f"candidates for {partial}")
        self.assertEqual(answers[0], expected)

    async def _questions(self) -> None:
        """Paths are checked and completed by one shell a node, whatever names there are."""
        before = self._kept()
        self.assertEqual(len(before), 2)
        await self.run_on("vnode1", "mkdir -p odd/dir; cd odd; touch -- '-x' \"two 'q'\nlines\"")
        for partial, expected in (
            ("vnode1:odd/", ["vnode1:odd/-x", "vnode1:odd/dir/", "vnode1:odd/two 'q'\nlines"]),
            ("vnode1:odd/d", ["vnode1:odd/dir/a", "vnode1:odd/dir/b"]),
            ("vnode1:/root/tree/ru", ["vnode1:/root/tree/run"]),
        ):
            self.assertEqual(await self.complete("NODE_CP_SRC", partial), expected)
        self.assertEqual(
            await self.complete("NODE_CP_DST", "vnode2:tr", "walt", "node", "cp", "file"),
            ["vnode2:tree/a", "vnode2:tree/b"],
        )
        self.assertEqual(self._kept(), before)
        os.kill(min(pid for pid, line in self._clients().items() if line in before),
                signal.SIGKILL)
        for node in ("vnode1", "vnode2"):
            await self.completes("NODE_CP_SRC", f"{node}:tree/ru", [f"{node}:tree/run"])
        self.assertEqual(self._kept(), before)

    async def _questions_about_images(self) -> None:
        """What is in an image, although nobody opened it, or while somebody has."""
        for words in ((), ("walt", "image", "cp", "local")):
            await self.completes("IMAGE_CP_DST", "saved:/root/n", ["saved:/root/new"], *words)
        await self.platform.ok("image", "cp", "saved:new", str(self.here / "from-image"))
        self.assertEqual((self.here / "from-image").read_text(), "kept\n")

    async def _expose(self) -> None:
        """A local port leads to a service of the node."""
        await self.run_on("vnode1", "echo page > /tmp/index.html; busybox httpd -p 8000 -h /tmp")
        port = free_port()
        exposed = self.spawn("node", "expose", "vnode1", "8000", str(port))
        await self.until(lambda: b"Listening" in exposed.out, "the port is open")
        for _ in range(3):
            page = await self.platform.runner.run(
                ["curl", "-s", f"http://127.0.0.1:{port}/index.html"]
            )
            self.assertEqual(page.stdout, b"page\n")
        exposed.transport.signalProcess("INT")
        self.assertEqual(await exposed.ended, 130)
        self.assertEqual(exposed.out.count(b"Connection from"), 3)

    async def _clients_killed(self) -> None:
        """A client that vanishes leaves no ssh, no process on the node, no container."""
        (self.here / "zero").touch()
        os.truncate(self.here / "zero", 1 << 40)
        await self.run_on("vnode2", "truncate -s 7G zero; mkfifo fifo")
        programs = [
            self.spawn("node", "run", "vnode2", "--", "cat fifo"),
            self.spawn("node", "shell", "vnode2", terminal=True),
            self.spawn("node", "run", "--term", "vnode2", "--", "cat fifo", terminal=True),
            self.spawn("node", "cp", str(self.here / "zero"), "vnode2:sent"),
            self.spawn("node", "cp", "vnode2:zero", str(self.here / "received")),
        ]
        await self.until(lambda: len(self._ssh()) == len(programs), "every ssh runs")
        for line in (*self._ssh(), *self._kept()):
            for option in (
                "PreferredAuthentications=publickey", "HostKeyAlias=walt.node",
                f"UserKnownHostsFile={self.platform.state}/ssh/known_hosts.nodes",
                "ConnectTimeout=10", "ServerAliveInterval=5",
            ):
                self.assertIn(f" -o {option} ", line)
        await self.until(
            lambda: any(one.startswith(".walt-") for one in os.listdir(self.here)), "data comes"
        )
        for program in programs:
            program.transport.signalProcess("KILL")
        await gatherResults([program.ended for program in programs])
        await self.until(lambda: self._ssh() == [], "no ssh is left")

        async def quiet() -> bool:
            return await self.run_on("vnode2", "ps | grep 'cat [f]ifo' || true") == ""

        await self.platform.until(quiet, "no command is left on the node")
        for name in os.listdir(self.here):
            if name.startswith(".walt-"):
                (self.here / name).unlink()

    async def _save(self) -> None:
        """What was changed on one node is in the image that another boots."""
        await self.run_on(
            "vnode1", "echo kept > /root/new; echo changed >> /etc/profile; rm -rf /opt /srv;"
            " ln -s root /opt; echo file > /srv; mkdir -m 1777 /root/empty;"
            " rm odd/two*"  # its name has a line break: it could not be saved
        )
        bad = await self.platform.walt("node", "save", "vnode1", "Bad Name")
        self.assertEqual(bad.status, 1)
        self.assertIn(b"not a valid image name", bad.stderr)

        leaving = self.spawn("node", "save", "vnode1", "abandoned")
        await self.until(lambda: b"Analysing" in leaving.out, "the save began")
        leaving.transport.signalProcess("KILL")
        await leaving.ended

        async def container_gone() -> bool:
            return await self._containers() == b""

        async def saved() -> str | None:
            # The image is let go a moment after its container.
            result = await self.platform.walt("node", "save", "vnode1", "saved")
            if result.status and b"held by another task" in result.stderr:
                return None
            self.assertEqual(result.status, 0, result.stderr)
            return result.stdout.decode()

        await self.platform.until(container_gone, "no container is left")
        self.assertIn("saved", await self.platform.until(saved, "the image is let go"))
        self.assertEqual(await self._images(), ["pc-x86-64-small", "saved"])
        await self.platform.ok("node", "boot", "vnode2", "saved")
        await self.wait("vnode2")
        self.assertEqual(
            await self.run_on(
                "vnode2", "cat /opt/new; tail -n 1 /etc/profile; cat /srv;"
                " stat -c %a /root/empty; readlink /opt"
            ),
            "kept\nchanged\nfile\n1777\nroot\n",
        )
        self.assertEqual(len(self._kept()), 1)  # that of the other node went as it rebooted
        declined = await self.platform.walt("node", "save", "vnode1", "saved", stdin=b"n\n")
        self.assertEqual(declined.status, 1)
        self.assertIn(b"overwrite image saved and reboot 1 node(s)", declined.stderr)

    async def _vanishing_node(self) -> Started:
        """Start a save, and kill the machine of the node while its files are coming."""
        await self.run_on("vnode2", "truncate -s 7G zero")
        lost = self.spawn("node", "save", "vnode2", "lost")
        layers = self.platform.state / "containers" / "storage" / "overlay"
        await self.until(
            lambda: any(one.stat().st_size > 1 << 20 for one in layers.glob("*/diff/root/zero")),
            "files are coming",
        )
        for pid in await self.platform.machines("vnode2"):
            os.kill(pid, signal.SIGKILL)
        return lost

    async def _booted_image(self) -> None:
        """A file goes into the image; its nodes, and only these, reboot with it."""
        await self.run_on("vnode2", "mkdir -p /etc/exp; echo in-the-image > /etc/exp/conf")
        refused = await self.platform.walt(
            "node", "cp", "vnode2:/etc/exp", "booted-image", user="bob", stdin=b"y\n"
        )
        self.assertEqual(refused.status, 1)
        self.assertIn(b"is not yours", refused.stderr)
        done = await self.platform.ok(
            "node", "cp", "vnode2:/etc/exp", "booted-image", stdin=b"y\n"
        )
        self.assertIn("Node vnode2 will reboot", done)
        await self.wait("vnode2")
        self.assertEqual(await self.run_on("vnode2", "cat /etc/exp/conf"), "in-the-image\n")
        self.assertEqual(await self.run_on("vnode1", "ls /root/new"), "/root/new\n")

    async def _node_hangs(self) -> None:
        """A frozen node: every command on it ends by itself, with a status and a reason.

        Another one vanishes meanwhile, in the middle of a save.
        """
        lost = await self._vanishing_node()
        await self.run_on("vnode1", "truncate -s 7G zero; mkfifo fifo")
        busy = {
            "run": self.spawn("node", "run", "vnode1", "--", "cat fifo"),
            "shell": self.spawn("node", "shell", "vnode1", terminal=True),
            "from": self.spawn("node", "cp", "vnode1:zero", str(self.here / "received")),
            "to": self.spawn("node", "cp", str(self.here / "zero"), "vnode1:sent"),
        }
        await self.until(lambda: len(self._ssh("-dump-diff-tar")) == len(busy),
                         "every ssh runs")
        frozen = await self.platform.machines("vnode1")
        self.assertTrue(frozen)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        late = {
            "save": self.spawn("node", "save", "vnode1", "half"),
            "reboot": self.spawn("node", "reboot", "vnode1"),
        }
        self.assertEqual(await busy["run"].ended, UNREACHABLE)
        self.assertEqual(await busy["shell"].ended, 1)
        for name in ("from", "to"):
            self.assertEqual(await busy[name].ended, 1, busy[name].err)
            self.assertIn(b"unreachable", busy[name].err)
        self.assertEqual(await late["save"].ended, 1)
        self.assertIn(b"The image was not saved", late["save"].err)
        self.assertEqual(await lost.ended, 1)
        for text in (b"unreachable", b"The image was not saved"):
            self.assertIn(text, lost.err)
        # The soft reboot timed out: the machine was stopped and started again.
        self.assertEqual(await late["reboot"].ended, 0, late["reboot"].err)
        self.assertFalse({"half", "lost"} & set(await self._images()))
        self.assertEqual((self._ssh(), await self._containers()), ([], b""))
        await self.wait("vnode1")

    async def _images(self) -> list[str]:
        return sorted((await self.platform.ok("image", "show", "--names-only")).split())

    async def _containers(self) -> bytes:
        found = await self.platform.runner.run(
            ["podman", "--root", f"{self.platform.state}/containers/storage",
             "--runroot", f"{self.platform.runtime}/containers", "ps", "-aq"],
        )
        return found.stdout

    def _ssh(self, without: str = "\n") -> list[str]:
        """Return the command lines of the ssh clients of this server, but for some.

        Shells kept for questions are not among them.
        """
        return [
            one for one in self._clients().values()
            if without not in one and not one.endswith(KEPT)
        ]

    def _kept(self) -> list[str]:
        """Return the command lines of the ssh clients whose shells answer questions."""
        return sorted(one for one in self._clients().values() if one.endswith(KEPT))

    def _clients(self) -> dict[int, str]:
        """Return the process ids and command lines of the ssh clients of this server."""
        mine = str(self.platform.state)
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[0] == "ssh" and any(mine in word for word in words):
                found[int(process.name)] = " ".join(words).strip()
        return found
