"""The platform's own key to nodes, and what ssh may use."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from walt.server.adapters.ssh import keys
from walt.server.adapters.ssh.options import device_command, git_command, node_options
from walt.server.assembly import nodes
from walt.server.runtime.process import ProcessRunner

KNOWN, KEY = Path("/known"), Path("/state/ssh/nodes.key")


class KeyTests(TestCase):
    async def test_made_once(self) -> None:
        """It is in the state directory, for root alone; its public half is told each time."""
        from twisted.internet import reactor

        state, runner = Path(self.mktemp()), ProcessRunner(reactor)
        public = await keys.ensure_node_key(runner, state)
        self.assertRegex(public, r"\Aecdsa-sha2-nistp256 \S+( walt-server)?\Z")
        self.assertEqual(keys.node_key(state).stat().st_mode & 0o777, 0o600)
        self.assertEqual([one.name for one in (state / "ssh").iterdir()], ["nodes.key"])
        self.assertEqual(await keys.ensure_node_key(runner, state), public)

    async def test_state_from_before(self) -> None:
        """Root's own key is offered in the first run only, to nodes that know no other."""
        from twisted.internet import reactor

        state = Path(self.mktemp())
        former = Path(self.mktemp())
        self.patch(nodes, "FORMER_KEY", former)
        own = keys.node_key(state)
        self.assertEqual(nodes._keys(state), [own])
        former.touch()
        self.assertEqual(nodes._keys(state), [own])  # no server ran here
        own.parent.mkdir(parents=True)
        self.assertEqual(nodes._keys(state), [own, former])
        await keys.ensure_node_key(ProcessRunner(reactor), state)
        self.assertEqual(nodes._keys(state), [own])


class OptionTests(SynchronousTestCase):
    def test_nothing_of_root(self) -> None:
        """No key but those named, no agent, no escape character, in every command."""
        for argv, named in (
            (["ssh", *node_options(KNOWN, KEY)], [str(KEY)]),
            (device_command("192.0.2.1", "root"), ["none"]),
            (git_command(None), ["none"]), (git_command(KEY), [str(KEY)]),
        ):
            options = [argv[at + 1] for at, word in enumerate(argv) if word == "-o"]
            self.assertIn("IdentitiesOnly=yes", options)
            self.assertIn("IdentityAgent=none", options)
            self.assertEqual(argv[argv.index("-e") + 1], "none")
            self.assertEqual(argv[argv.index("-F") + 1], "/dev/null")
            used = [argv[at + 1] for at, word in enumerate(argv) if word == "-i"]
            used += [one.split("=")[1] for one in options if one.startswith("IdentityFile=")]
            self.assertEqual(used, named)
