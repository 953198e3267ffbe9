"""ssh, ansible and notebooks of people reach nodes: dropbear and OpenSSH; keys come and go."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.client.test_notebook import EXECUTE, notebook, page_cells
from tests.patience import patient
from tests.system.live import CACHE, ROOT, LivePlatform, why_not
from tests.system.python_image import OPENSSH
from walt.server.runtime.process import ProcessResult

EXPERIMENT = """#!/usr/bin/env python3
import sys
print(sys.argv[2], open("/proc/sys/kernel/hostname").read().strip())
"""


def blocks(name: str, language: str) -> list[str]:
    """Return the programs that a page shows in a language."""
    text = (ROOT / name).read_text()
    return [part.partition("```")[0] for part in text.split(f"```{language}\n")[1:]]


class SshTests(TestCase):
    skip = why_not()
    timeout = patient(900)

    async def test_ssh_and_ansible(self) -> None:
        """Two nodes of alice, by ssh and by ansible; what bob may not, and what ends when."""
        from twisted.internet import reactor

        self.platform = LivePlatform(reactor)
        self.addCleanup(self.platform.close)
        self.home = self.platform.base / "home"
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        await self.platform.runner.run(
            [sys.executable, "-m", "tests.system.python_image", str(CACHE),
             str(self.platform.state), str(self.platform.runtime)],
            timeout=patient(600), env={"PYTHONPATH": str(ROOT)},
        )
        await self.platform.add_image("waltplatform/openssh", OPENSSH)
        await self.platform.start()
        for name in ("alice", "bob"):
            await self.run_here(
                "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}'s",
                "-f", str(self.home / ".ssh" / name),
            )
        await self.keys_are_checked()
        await self.platform.ok("node", "create", "light")
        await self.platform.ok("image", "clone", "walt:waltplatform/openssh")
        await self.platform.ok("node", "create", "full")
        await self.platform.ok("node", "boot", "full", "openssh")
        told = await self.walt("advanced", "add-ssh-key", str(self.home / ".ssh" / "alice.pub"))
        self.assertIn(b"opens the nodes that you own", told.stdout)
        await self.platform.ok("node", "wait", "light,full", timeout=patient(400))
        await self.ssh_works()
        await self.from_another_machine()
        await self.saved_without_keys()
        await self.ansible_works()
        await self.notebook_works()
        await self.programs_of_pages()
        await self.keys_go()

    async def run_here(
        self, *words: str, user: str = "alice", check: bool = True, cwd: Path | None = None
    ) -> ProcessResult:
        """Run a program as somebody of this machine would, whose home is `home`."""
        command = [*words]
        if cwd is not None:
            command = ["env", f"--chdir={cwd}", *words]
        return await self.platform.runner.run(
            command, check=check, timeout=patient(400), env={
                **self.platform.environment(user), "HOME": str(self.home),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_HOME": str(self.home / ".ansible"), "ANSIBLE_NOCOLOR": "1",
                "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8",
            },
        )

    async def walt(self, *words: str, user: str = "alice") -> ProcessResult:
        """Run walt with that home; it may fail."""
        return await self.run_here(
            sys.executable, "-m", "walt.client.main", *words, user=user, check=False
        )

    async def keys_are_checked(self) -> None:
        """Private keys, options and what is no key are refused; nothing is kept of them."""
        wrong = self.home / "wrong.pub"
        public = (self.home / ".ssh" / "alice.pub").read_text()
        for text, why in (
            ((self.home / ".ssh" / "alice").read_text(), b"private key"),
            (f'command="reboot" {public}', b"options"), (public * 2, b"one line"), ("x", b"not a"),
        ):
            wrong.write_text(text)
            told = await self.walt("advanced", "add-ssh-key", str(wrong))
            self.assertEqual((told.status, told.stdout), (1, b""))
            self.assertIn(why, told.stderr)
        told = await self.walt("advanced", "show-ssh-keys", "--json")
        self.assertEqual((told.stdout, told.status), (b"[]\n", 0))

    async def ssh(self, *words: str, key: str = "alice") -> ProcessResult:
        """Run ssh with the configuration that walt made."""
        return await self.run_here(
            "ssh", "-F", str(self.home / ".ssh" / "config"), "-i", str(self.home / ".ssh" / key),
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", *words, check=False,
        )

    async def ssh_works(self) -> None:
        """Commands, their statuses and data, on both servers; not for a key that nobody added."""
        config = self.home / ".ssh" / "config"
        told = await self.walt("node", "ssh-config", "my-nodes")
        self.assertEqual((told.status, told.stderr), (0, b""))
        config.write_bytes(told.stdout)
        data = os.urandom(300_000)
        (self.home / "data").write_bytes(data)
        for name in ("light", "full"):
            ran = await self.ssh(name, "hostname; echo wrong >&2; exit 7")
            self.assertEqual((ran.status, ran.stdout, ran.stderr),
                             (7, f"{name}\n".encode(), b"wrong\n"))
            ran = await self.run_here(
                "sh", "-c", f"ssh -F .ssh/config -i .ssh/alice {name} cat < data", cwd=self.home,
            )
            self.assertEqual(ran.stdout, data)
            ran = await self.ssh(name, "true", key="bob")
            self.assertEqual(ran.status, 255)
            self.assertIn(b"Permission denied", ran.stderr)
        await self.run_here(  # sftp, where there is a server of it
            "scp", "-q", "-F", str(config), "-i", str(self.home / ".ssh" / "alice"),
            str(self.home / "data"), "full:/root/data",
        )
        self.assertEqual((await self.ssh("full", "cat /root/data")).stdout, data)
        # Another key than that of the platform's nodes is refused.
        known = next((self.home / ".walt" / "known_hosts").iterdir())
        right = known.read_text()
        public = (self.home / ".ssh" / "bob.pub").read_text()
        known.write_text(f"walt.node {public}")
        ran = await self.ssh("full", "true")
        self.assertEqual(ran.status, 255)
        self.assertIn(b"verification failed", ran.stderr)
        known.write_text(right)
        ran = await self.ssh("-o", "ProxyCommand=" + " ".join(
            [sys.executable, "-m", "walt.client.main", "node", "ssh-proxy", "nowhere"]), "full")
        self.assertIn(b'no device named "nowhere"', ran.stderr)
        told = await self.walt("node", "ssh-config", "full", user="bob")
        self.assertIn(b"Host full\n", told.stdout)
        self.assertIn(b"not yours", told.stderr)
        self.assertIn(b"add-ssh-key", told.stderr)

    async def from_another_machine(self) -> None:
        """An enrolled account of another machine: ssh goes over TLS, with the same keys."""
        invited = await self.platform.ok("advanced", "add-user", "alice")
        token = next(word for word in invited.split() if "." in word and len(word) > 50)
        home, server = self.platform.base / "away", f"{self.platform.net}.1"
        home.mkdir()

        async def away(*words: str) -> ProcessResult:
            return await self.platform.runner.run(
                ["nsenter", f"--net=/run/netns/{self.platform.namespace}", "--", *words],
                check=False, timeout=patient(100), env={
                    "PYTHONPATH": str(ROOT), "HOME": str(home), "WALT_SERVER": server,
                    "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
                },
            )

        walt = (sys.executable, "-m", "walt.client.main")
        ran = await away(*walt, "advanced", "enrol", server, token)
        self.assertEqual(ran.status, 0, ran.stderr.decode())
        ran = await away(*walt, "node", "ssh-config", "light,full")
        self.assertEqual((ran.status, ran.stderr), (0, b""))
        (home / "config").write_bytes(ran.stdout)
        for name in ("light", "full"):
            ran = await away(
                "ssh", "-F", str(home / "config"), "-i", str(self.home / ".ssh" / "alice"),
                "-o", "BatchMode=yes", name, "hostname",
            )
            self.assertEqual((ran.status, ran.stdout), (0, f"{name}\n".encode()), ran.stderr)

    async def saved_without_keys(self) -> None:
        """An image made of a node does not let its user in elsewhere; the user's own line stays."""
        await self.ssh("light", "echo '# own line' >> .ssh/authorized_keys; echo > /root/new")
        await self.platform.ok("node", "save", "light", "kept", timeout=patient(200))
        stored = await self.platform.ok(
            "image", "cp", "kept:/root/.ssh/authorized_keys", str(self.home / "kept")
        )
        self.assertEqual(stored.count("rror"), 0)
        text = (self.home / "kept").read_text()
        self.assertIn("# own line", text)
        self.assertNotIn("walt-user-key", text)
        self.assertIn("walt-user-key", (await self.ssh("light", "cat .ssh/authorized_keys"))
                      .stdout.decode())

    async def ansible_works(self) -> None:
        """ping, copy, command and fetch on both nodes, through the inventory of walt."""
        place = self.home / "play"
        place.mkdir()
        inventory = place / "inventory"
        inventory.write_text(
            f"#!/bin/sh\nexec '{sys.executable}' -m walt.client.ansible \"$@\"\n"
        )
        inventory.chmod(0o755)
        (place / "experiment.py").write_text(EXPERIMENT)
        (place / "play.yml").write_text(*blocks("walt/doc/ansible.md", "yaml"))
        ran = await self.run_here(
            sys.executable, "-m", "ansible", "playbook", "-i", "inventory", "play.yml",
            "--private-key", str(self.home / ".ssh" / "alice"), check=False, cwd=place,
        )
        told = ran.stdout.decode() + ran.stderr.decode()
        self.assertEqual(ran.status, 0, told)
        for name in ("light", "full"):
            result = place / "results" / name / "root" / "result.txt"
            self.assertEqual(result.read_text(), f"{name} {name}", told)
        listed: Any = await self.run_here(str(inventory), "--list", user="bob")
        self.assertEqual(
            json.loads(listed.stdout), {"_meta": {"hostvars": {}}, "walt": {"hosts": []}}
        )
        ran = await self.run_here(str(inventory), "--host", "full")
        self.assertIn(b'"walt_owner": "alice"', ran.stdout)
        ran = await self.run_here(str(inventory), "--what", check=False)
        self.assertEqual((ran.status, ran.stdout), (2, b""))

    async def notebook_works(self) -> None:
        """The notebook of the page runs in a kernel of Jupyter, with these nodes."""
        book = self.home / "book.ipynb"
        book.write_text(json.dumps(notebook(page_cells())))
        await self.run_here(sys.executable, "-c", EXECUTE, str(book), str(patient(120)))
        first, second = json.loads(book.read_text())["cells"][:2]
        self.assertIn("<table", "".join(first["outputs"][0]["data"]["text/html"]))
        told = "".join(second["outputs"][0]["text"])
        for name in ("light", "full"):
            self.assertIn(f"{name} is up for ", told)

    async def programs_of_pages(self) -> None:
        """The experiment of README, and the first program of the page on scripts."""
        (readme,) = blocks("README.md", "python")
        (script, *_) = blocks("walt/doc/scripting.md", "python")
        ran = await self.run_here(sys.executable, "-c", readme)
        told = ran.stdout.decode()
        self.assertEqual(told.count("10 packets received"), 2, told + ran.stderr.decode())
        ran = await self.run_here(sys.executable, "-c", script)
        told = ran.stdout.decode()
        self.assertIn("5 packets received", told, ran.stderr.decode())
        self.assertNotIn("probe", await self.platform.ok("node", "show", "--all", "--names-only"))

    async def keys_go(self) -> None:
        """A key that is removed opens nothing any more; nor does one of a former owner."""
        told = await self.walt("advanced", "add-ssh-key", str(self.home / ".ssh" / "bob.pub"))
        self.assertIn(b"It is on full, light now.", told.stdout)
        self.assertEqual((await self.ssh("light", "true", key="bob")).status, 0)
        told = await self.walt("advanced", "remove-ssh-key", "bob's")
        self.assertEqual((told.status, told.stderr), (0, b""))
        for name in ("light", "full"):
            self.assertEqual((await self.ssh(name, "true", key="bob")).status, 255)
            self.assertEqual((await self.ssh(name, "true")).status, 0)
        await self.platform.ok("node", "release", "light")
        await self.platform.ok("node", "wait", "light", timeout=patient(300))
        self.assertEqual((await self.ssh("light", "true")).status, 255)
        line = await self.platform.ok(
            "node", "run", "light", "cat /root/.ssh/authorized_keys", timeout=patient(200)
        )
        self.assertNotIn("walt-user-key", line)
