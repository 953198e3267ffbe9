"""The dialogue of the first use, with a prepared server (spec user-surface §4.2)."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.client.scripted import Outcome, run
from walt.client import config_file
from walt.common.errors import Denied
from walt.rpc.commands import devices
from walt.rpc.commands.images import RegistryLogin
from walt.rpc.commands.session import GetTime

SHOWN = (devices.ShowDevices, {"tables": {}})
TIME = (GetTime, {"time": 1.5})
ACCOUNT: list[Any] = [TIME, (RegistryLogin, {})]


class FirstUseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.file = self.home / ".walt" / "config"

    def walt(
        self, answers: list[str | None], passwords: list[str | None], *sessions: list[Any],
        terminal: bool = True,
    ) -> Outcome:
        """Run `walt device show` on a machine that knows no server."""
        variables = {"HOME": str(self.home), "WALT_SERVER": "", "WALT_USERNAME": ""}
        with mock.patch("walt.client.first_use.ask", side_effect=answers) as ask, \
                mock.patch("walt.client.commands.registries.ask_password", side_effect=passwords), \
                mock.patch("walt.client.first_use.both_terminals", return_value=terminal), \
                mock.patch("walt.client.settings.is_server", return_value=False):
            outcome = run("device", "show", "--json", sessions=list(sessions), variables=variables)
        self.assertEqual(ask.call_count, len(answers))
        return outcome

    def test_hub(self) -> None:
        """The name at the hub is the user name; the account is tried, asked again, and kept."""
        outcome = self.walt(
            ["tcp:host.example", "", "maybe", "y", "ann", "tcp:host.example", "y", "ann"],
            ["", "wrong", "right"],
            [TIME, (RegistryLogin, Denied("the hub does not accept this password"))], ACCOUNT,
            [SHOWN],
        )
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertIn("the hub does not accept this password", outcome.out)
        self.assertIn("Your user name on this platform is ann, too.", outcome.out)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.file.parent.stat().st_mode), 0o700)
        self.assertNotIn("right", self.file.read_text())
        with mock.patch.dict("os.environ", HOME=str(self.home)):
            self.assertEqual(config_file.read(), {
                "walt.server": "tcp:host.example", "walt.username": "ann",
                "registries.hub.username": "ann",
                "registries.hub.password": config_file.masked(b"right").hex(),
            })
        again = self.walt([], [], [SHOWN])
        self.assertEqual((again.status, again.err), (0, ""))
        self.assertEqual(outcome.calls[3], (
            "cs.registries.login",
            {"label": "hub", "credentials": {"hub": {"username": "ann", "password": "right"}}},
        ))

    def test_names(self) -> None:
        """Impossible names are told and asked again; a hub name may be none of a user."""
        outcome = self.walt(
            ["bad host!", "-", "host.example", "", "y", "Ann_B", "waltplatform", "ann"], ["secret"],
            ACCOUNT, [SHOWN],
        )
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertIn("is not the name or the address", outcome.out)
        self.assertIn('server: "tcp:host.example"', self.file.read_text())
        self.assertIn("username: ann\n", self.file.read_text())

    def test_bad_token(self) -> None:
        """A token that is none is told, and asked again."""
        outcome = self.walt(["host.example", "nonsense", "", "n", "bob"], [], [TIME], [SHOWN])
        self.assertIn("this is not an enrolment token", outcome.out)
        self.assertEqual(outcome.status, 0)

    def test_no_answer(self) -> None:
        """The end of input ends it; without a terminal nothing is asked; nothing is saved."""
        for answers, terminal in (
            ([None], True), (["host", None], True), (["tcp:host", None], True),
            (["tcp:host", "n", None], True), ([], False),
        ):
            outcome = self.walt(answers, [], terminal=terminal)  # type: ignore[arg-type]
            self.assertEqual(outcome.status, 1)
            self.assertIn("Aborted" if terminal else "set WALT_SERVER", outcome.err)
        outcome = self.walt(["tcp:host", "y", "ann"], [None])
        self.assertEqual(outcome.status, 1)
        self.assertFalse(self.file.exists())
