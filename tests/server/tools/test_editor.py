from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.server.tools.test_setup import CONF, Site
from walt.server.config.load import parse
from walt.server.config.model import Vpn
from walt.server.tools.setup.editor import Editor, gateway_vlans, interfaces, resolves
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.vpn_editor import Trials, VpnEditor, real_trials
from walt.server.tools.vpn import http_trial
from walt.server.tools.vpn.http_trial import try_http

TEXT = """\
# our lab
network:
  walt-net:   # the boards
    ip: 192.168.77.1/24
"""


class EditorTests(SynchronousTestCase):
    def edit(self, *answers: str, text: str = TEXT) -> tuple[str | None, str]:
        """Give answers; return what is saved, and what was told."""
        told: list[str] = []
        waiting = list(answers)

        def ask(question: str) -> str:
            told.append(question)
            return waiting.pop(0)

        editor = Editor(
            text, ["eth1", "eth2"], ask, told.append, lambda host: host == "reg.example",
            {("eth1", 20)},
        )
        saved = editor.run()
        self.assertEqual(waiting, [])
        return saved, "\n".join(told)

    def test_networks(self) -> None:
        """An interface, a VLAN, an address; another network by DHCP; comments stay."""
        saved, told = self.edit(
            "1", "eth1", "12", "192.168.50.1/24", "2", "eth2", "", "dhcp", "s"
        )
        assert saved is not None
        self.assertIn("# our lab", saved)
        self.assertIn("walt-net:   # the boards", saved)
        config = parse(saved)
        walt_net, admin = config.networks["walt-net"], config.networks["walt-adm"]
        self.assertEqual(
            (walt_net.raw_device, walt_net.vlan, str(walt_net.ip)),
            ("eth1", 12, "192.168.50.1/24"),
        )
        self.assertEqual((admin.raw_device, admin.ip), ("eth2", "dhcp"))
        self.assertIn("interfaces: eth1, eth2", told)
        saved, _ = self.edit("1", "-", "-", "", "2", "-", "-", "-", "s", text=saved)
        self.assertEqual([*parse(saved or "").networks], ["walt-net"])
        self.assertIsNone(parse(saved or "").networks["walt-net"].raw_device)

    def test_what_is_wrong(self) -> None:
        """Errors are shown at once, and nothing can be saved until they are mended."""
        saved, told = self.edit(
            "1", "eth9", "", "nonsense", "s", "2", "eth1", "", "10.9.9.1/24", "1", "eth1", "",
            "192.168.77.1/24", "s", "d",
        )
        self.assertIsNone(saved)
        self.assertIn("eth9 is none of these interfaces", told)
        self.assertIn("WRONG: ", told)
        self.assertEqual(told.count("This cannot be saved"), 2)  # also one interface for two
        saved, told = self.edit("?", "r hub", "s", "d")
        self.assertIsNone(saved)
        self.assertIn("registries: at least one is needed", told)
        self.assertIn("one of the\ndefault gateway", told)

    def test_registries(self) -> None:
        """Added with defaults, JFrog's with its repository; labels are their own; removed."""
        saved, told = self.edit(
            "a", "hub", "a", "lab", "ours", "", "nowhere.example",
            "a", "lab", "ours", "", "reg.example", "5000", "", "none",
            "a", "frog", "theirs", "jfrog-artifactory", "reg.example", "", "", "", "walt", "s",
        )
        assert saved is not None
        self.assertIn("a label of its own is needed", told)
        self.assertIn("nowhere.example has no address here", told)
        found = {one.label: one for one in parse(saved).registries}
        self.assertEqual([*found], ["hub", "lab", "frog"])
        self.assertEqual(
            (found["lab"].host, found["lab"].port, found["lab"].protocol, found["lab"].auth),
            ("reg.example", 5000, "https", "none"),
        )
        self.assertEqual((found["frog"].port, found["frog"].repository), (443, "walt"))
        saved, told = self.edit("r none", "r hub", "r frog", "s", text=saved)
        self.assertEqual([one.label for one in parse(saved or "").registries], ["lab"])
        self.assertIn("there is no registry none", told)
        saved, _ = self.edit("a", "hub", "s", text=saved or "")
        self.assertEqual([one.label for one in parse(saved or "").registries], ["hub", "lab"])

    def test_edited_registries(self) -> None:
        """Each value is offered as it is; two are not at one place, unless JFrog's differ."""
        two = "".join(
            f"- {{label: {label}, api: {api}, description: x, host: reg.example,"
            f" repository: {label}}}\n"
            for label, api in (("one", "jfrog-artifactory"), ("two", "jfrog-artifactory"))
        )
        saved, told = self.edit(
            "e none", "e one", "", "", "", "", "5000", "http", "none", "", "s",
            text=f"{TEXT}registries:\n{two}",
        )
        first, second = parse(saved or "").registries
        self.assertIn("there is no registry none", told)
        self.assertEqual(
            (first.label, first.port, first.protocol, first.repository, second.port),
            ("one", 5000, "http", "one", 443),
        )
        # ... with the repository of the other one, and its port:
        saved, told = self.edit(
            "e one", "", "", "", "", "443", "", "", "two", "s", "e two", "two", "y" * 36,
            "e hub", "a", "two", "d", text=saved or "",
        )
        self.assertIsNone(saved)
        for text in (
            "WRONG: registries: two registries are at the same host and port",
            "a description of 1 to 35 characters", "the hub has nothing", "a label of its own",
        ):
            self.assertIn(text, told)

    def test_vlan_of_the_gateway(self) -> None:
        """It is refused, other VLANs of that interface are not."""
        saved, told = self.edit("1", "eth1", "20", "", "s", "1", "", "21", "", "s")
        self.assertIn("WRONG: network.walt-net.vlan: VLAN 20 of eth1 leads to the default", told)
        self.assertEqual(parse(saved or "").networks["walt-net"].vlan, 21)
        site = Site(Path(self.mktemp()).absolute())
        machine = Machine(site.programs, site.root)
        self.assertEqual(gateway_vlans(machine), frozenset())
        site.write("proc/net/route", "Iface Destination\neth0.20 00000000 0102A8C0\n")
        site.write(
            "proc/net/vlan/config",
            "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n"
            "eth0.20        | 20  | eth0\neth0.30        | 30  | eth0\n",
        )
        self.assertEqual(gateway_vlans(machine), frozenset({("eth0", 20)}))

    def test_interfaces(self) -> None:
        """Wired ones, but for the one of the default gateway."""
        site = Site(Path(self.mktemp()).absolute())
        for name in ("eth0", "eth1", "wlan0", "lo"):
            site.write(f"sys/class/net/{name}/address", "")
            if name != "lo":
                site.write(f"sys/class/net/{name}/device/x", "")
        site.write("sys/class/net/wlan0/wireless/x", "")
        site.write("proc/net/route", "Iface Destination\neth0 00000000 0102A8C0\n")
        self.assertEqual(interfaces(Machine(site.programs, site.root)), ["eth1"])
        self.assertTrue(resolves("127.0.0.1"))
        self.assertFalse(resolves("a" * 300))

    def test_command(self) -> None:
        """walt-server-setup asks on a terminal before it goes to work; discarded, it does not."""
        self.patch(os, "geteuid", lambda: 0)
        site = Site(Path(self.mktemp()).absolute())
        self.patch(sys, "stdin", io.StringIO("d\n"))
        status, _, err = site.call("--edit-conf")
        self.assertEqual(status, 1)
        self.assertIn("there is none; use --set", err)
        for typed, told in (("d\n", "discarded"), ("", "discarded")):
            self.patch(sys, "stdin", Terminal(typed))
            status, _, err = site.call("--edit-conf")
            self.assertEqual((status, told in err), (1, True), err)
            self.assertFalse((site.root / CONF.lstrip("/")).exists())
        self.patch(sys, "stdin", Terminal("1\n\n\n192.168.44.1/24\ns\n"))
        status, out, err = site.call("--edit-conf")
        self.assertEqual((status, err), (0, ""), out)
        self.assertIn("192.168.44.1/24", site.text(CONF.lstrip("/")))
        status, _, err = site.call("--edit-conf", "--check")
        self.assertEqual((status, "changes nothing" in err), (1, True))


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        """It says so."""
        return True


class VpnEditorTests(SynchronousTestCase):
    def edit(self, *answers: str, text: str = TEXT, name: str = "walt.example.org",
             wrong: str | None = None) -> tuple[str, str]:
        """Give answers; return the text, and what was told."""
        told: list[str] = []
        waiting = list(answers)

        def ask(question: str) -> str:
            told.append(question)
            return waiting.pop(0)

        def tried(what: str, server: str) -> str | None:
            told.append(f"tried {what} for {server}")
            return wrong

        trials = Trials(lambda: name, tried, tried)
        editor = VpnEditor(
            text, ask, told.append, lambda host: host == "walt.example.org", trials
        )
        found = editor.run()
        self.assertEqual(waiting, [])
        return found, "\n".join(told)

    def test_life(self) -> None:
        """Enabled with the full name, changed, tried, disabled; comments stay."""
        text, told = self.edit("yes", "")
        config = parse(text)
        self.assertEqual(config.vpn, Vpn(
            True, "walt.example.org:12322", "walt.example.org", "permissive"
        ))
        self.assertEqual(config.names, ("walt.example.org",))
        self.assertIn("# our lab", text)
        self.assertIn("EEPROM", told)
        text, told = self.edit("m", "s", "gate.org", "h", "web.org", "?", "s", "", "", text=text)
        self.assertEqual(parse(text).vpn, Vpn(True, "gate.org", "web.org", "enforced"))
        self.assertIn("tried gate.org for walt.example.org", told)
        self.assertIn("tried web.org for walt.example.org", told)
        text, _ = self.edit("x", text=text)
        self.assertFalse(parse(text).vpn.enabled)
        text, _ = self.edit("yes", "", text=text)
        self.assertTrue(parse(text).vpn.enabled)

    def test_entry_points_that_fail(self) -> None:
        """They are told, and taken when somebody insists."""
        text, _ = self.edit("yes", "")
        same, told = self.edit("s", "gate.org", "", "", text=text, wrong="no way")
        self.assertEqual(same, text)
        self.assertIn("no way", told)
        changed, _ = self.edit("h", "web.org", "yes", "", text=text, wrong="no way")
        self.assertEqual(parse(changed).vpn.http_entrypoint, "web.org")

    def test_not_enabled(self) -> None:
        """Without a full name that has an address, or without a yes."""
        for name, answers in (
            ("", ()), ("laptop", ()), ("none.example.org", ()), ("walt.example.org", ("y",)),
        ):
            text, _ = self.edit(*answers, name=name)
            self.assertEqual(text, TEXT)

    def test_in_the_editor(self) -> None:
        """It is one of the things that are asked about."""
        answers = ["v", "yes", "", "s"]
        told: list[str] = []
        editor = Editor(
            TEXT, [], lambda question: answers.pop(0), told.append, lambda host: True,
            trials=Trials(lambda: "walt.example.org", lambda *_: None, lambda *_: None),
        )
        saved = editor.run()
        assert saved is not None
        self.assertTrue(parse(saved).vpn.enabled)
        self.assertTrue(any("VPN: walt.example.org:12322" in line for line in told))

    def test_ssh_before_the_first_start(self) -> None:
        """Without the authority there is nothing to come in with."""
        trials = real_trials(f"state-dir: {self.mktemp()}\n")
        self.assertIn("when the server has run", trials.ssh("gate.org", "walt.org") or "")


class HttpTrialTests(SynchronousTestCase):
    def test_answers(self) -> None:
        """This server, another one, none; while the server is stopped, somebody answers for it."""
        own, other = free_port(), free_port()
        self.assertIsNone(try_http("127.0.0.1", "walt.org", own_port=own, port=own, pause=0.2))
        with http_trial.answering("other.org", other):
            wrong = try_http("127.0.0.1", "walt.org", own_port=own, port=other, pause=0.2)
        self.assertIn("'other.org', not walt.org", wrong or "")
        nobody = try_http("127.0.0.1", "w", own_port=own, port=other, pause=0.2)
        self.assertIn("refused", nobody or "")
        with http_trial.answering("walt.org", own):  # the server runs: its port is taken
            self.assertIsNone(try_http("127.0.0.1", "walt.org", own_port=own, port=own, pause=0.2))
        self.assertIsNotNone(try_http("bad host", "w", own_port=own, pause=0.2))


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
