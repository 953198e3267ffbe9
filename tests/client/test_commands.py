"""Commands through the public interface; calls parsed and answers written by the real schema."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.client import scripted
from tests.client.platform import ROOT
from tests.client.scripted import USER, environment, run
from walt.client import main, settings, terminal
from walt.client.commands import forgetting, registries
from walt.client.commands.help import topics
from walt.client.errors import Failure
from walt.client.operations.boots import AT_ONCE
from walt.common.errors import (
    Conflict,
    CredentialsNeeded,
    InternalError,
    Invalid,
    NotFound,
    Unavailable,
)
from walt.common.records import block_of, encode
from walt.rpc import rows
from walt.rpc.arguments import Written
from walt.rpc.commands import devices, images, logs, nodes
from walt.rpc.commands import session as calls

NODE: dict[str, Any] = {
    "name": "n1", "type": "virtual", "model": "pc-x86-64", "ip": "192.168.1.2",
    "netsetup": "LAN", "booted": True, "powersave": False, "image": "alice/img:latest",
    "image_name": "img", "owner": "alice", "clonable_image_link": "walt:alice/img",
    "virtual": True, "mac": "52:54:00:00:00:02", "state": "booted", "boot_stage": None,
    "failure": None, "trouble": None,
    "reserved_by": None, "reserved_until": None,
    "config": {"boot.retries": 9},
}
ALONE = {"client_reboots": None}  # no plugin offers to reboot nodes
MINE: dict[str, Any] = {
    "names": ["n1"], "owned": ["n1"], "free": [], "others": [], "not_nodes": [], "owners": {},
    "reservations": [],
}
THEIRS: dict[str, Any] = {
    "names": ["n1", "n2", "n3"], "owned": [], "free": [], "others": ["n1", "n2", "n3"],
    "not_nodes": [], "reservations": [], "owners": {"n1": "bob", "n2": "carol", "n3": "bob"},
}


COLUMNS = [*rows.LISTED_NODES.fields]
NO_TABLES: dict[str, Any] = {"own": [], "free": [], "others": [], "total": 0}


def tables(**changes: Any) -> tuple[Any, dict[str, Any]]:
    """Return what the tables of these nodes are made from."""
    shown = {
        kind: [[node[name] for name in COLUMNS] for node in value]
        for kind, value in changes.items() if kind != "total"
    }
    return nodes.ListNodes, {"tables": {**NO_TABLES, **changes, **shown, "columns": COLUMNS}}


def objects(**changes: Any) -> tuple[Any, dict[str, Any]]:
    """Return what programs get of these nodes."""
    return nodes.ShowNodes, {"tables": {**NO_TABLES, **changes}}


BOOT: dict[str, Any] = {
    "node": "n1", "mac": "52:54:00:00:00:02", "image": "alice/img:latest", "digest": "sha256:1",
    "cause": "reboot requested", "tries": 1, "outcome": "booted", "reason": None,
    "stage": "ready", "asked": 1000.0, "started": 1000.0, "address": 1002.0, "script": 1003.0,
    "kernel": 1003.5, "root": 1007.0, "system": 1008.0, "ready": 1010.0,
}


def booted(seconds: float) -> dict[str, Any]:
    """Return the record of a boot that took so long."""
    return {**BOOT, "ready": 1000 + seconds}


class OutputTests(SynchronousTestCase):
    def test_a_full_disk(self) -> None:
        """Output that cannot be written is an error, told once."""
        for words in (["--help"], ["node", "--help"], ["help", "show", "tutorial"], ["--version"]):
            with open("/dev/full", "w") as full:
                done = subprocess.run(
                    [sys.executable, "-m", "walt.client.main", *words], stdout=full,
                    stderr=subprocess.PIPE, check=False, timeout=60, env={"PYTHONPATH": str(ROOT)},
                )
            self.assertEqual((done.returncode, done.stderr.decode()), (
                1, "The output cannot be written: No space left on device\n"
            ), words)

    def test_numbers(self) -> None:
        """Those that no clock takes are refused as words."""
        for words in (
            ("node", "wait", "--timeout", "9" * 20, "n1"),
            ("log", "wait", "--timeout", "9" * 20, "x"),
        ):
            outcome = run(*words)
            self.assertEqual(outcome.status, 2, outcome.err)
            self.assertIn("expects a number up to", outcome.err)

    def test_expressions(self) -> None:
        """Classes of characters are fine; what POSIX does not know is told before it is sent."""
        for expression in (r"\d+", r"a\\\w", "(", r"x\b"):
            outcome = run("log", "wait", expression)
            self.assertEqual(outcome.status, 2, outcome.err)
            self.assertIn("regular expression", outcome.err)


class SwitchTests(SynchronousTestCase):
    SCANNED = {"name": "s1", "mac": "02:00:00:00:00:02", "result": "OK", "detail": None}

    def test_rescan_for_programs(self) -> None:
        """JSON alone: the server is asked to tell no lines."""
        for words, quiet in (((), False), (("--json",), True)):
            outcome = run("device", "rescan", "s1", *words, session=[
                (devices.RescanDevices, {"results": [self.SCANNED]}),
            ])
            self.assertEqual(outcome.calls[0][1], {"devices": "s1", "quiet": quiet})
        self.assertEqual(json.loads(outcome.out), [self.SCANNED])

    def test_settings_without_a_port(self) -> None:
        """Wrong words, told as such."""
        outcome = run("device", "port-config", "s1", "name=desk")
        self.assertEqual((outcome.status, outcome.out), (2, ""))
        self.assertIn("which port?", outcome.err)


class ReservationTests(SynchronousTestCase):
    RESERVED = {"node": "n1", "user": "bob", "until": 1000.0}

    def test_who_is_asked(self) -> None:
        """Nodes that another user's script has reserved need a confirmation."""
        for answer, status in (("y", 0), ("n", 1)):
            self.patch(terminal, "read_line", lambda answer=answer: answer)
            outcome = run("node", "reboot", "n1", session=[
                (nodes.ExpandNodes, {"names": ["n1"]}),
                (nodes.NodeOwnership, {**MINE, "reservations": [self.RESERVED]}),
                *([(nodes.RebootNodes, {"ok": True, "left": None})] if status == 0 else []),
            ])
            self.assertEqual(outcome.status, status, outcome.err)
            until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1000))
            self.assertEqual(
                outcome.err, f"Warning: Node n1 is reserved by bob until {until}.\n"
            )

    def test_shown(self) -> None:
        """With the table of nodes."""
        reserved = {**NODE, "reserved_by": "bob", "reserved_until": 1000.0}
        outcome = run("node", "show", session=[tables(own=[reserved], total=1)])
        self.assertIn("Scripts have reserved the following nodes:", outcome.out)
        self.assertIn("bob", outcome.out)


class NodeBootsTests(SynchronousTestCase):
    def test_tables(self) -> None:
        """Each boot, then each image; what was not reached is a dash."""
        stuck = {
            **BOOT, **dict.fromkeys(("script", "kernel", "root", "system", "ready")),
            "outcome": "failed", "stage": "address", "cause": None, "tries": 10,
            "reason": "it was not booted",
        }
        outcome = run("node", "boots", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}),
            (nodes.ListBoots, {"boots": [BOOT, stuck, booted(30)]}),
        ])
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertEqual(outcome.calls, [
            ("cs.nodes.expand", {"nodes": "my-nodes"}),
            ("cs.nodes.boots", {"nodes": "n1", "count": 10, "most": None}),
        ])
        lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
        told = "\n".join(lines)
        self.assertIn(" reboot requested 1 2.0 3.0 3.5 7.0 8.0 10.0 booted\n", told)
        self.assertIn(" - 10 2.0 - - - - - failed after address\n", told)
        self.assertIn("alice/img:latest 3 2 1 10.0 30.0 30.0", lines)

    def test_json(self) -> None:
        """Records as they are, and percentiles of each stage."""
        many = [booted(seconds) for seconds in range(10, 110)]
        outcome = run("node", "boots", "n1", "--last", "100", "--json", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}), (nodes.ListBoots, {"boots": many}),
        ])
        self.assertEqual(outcome.calls[1][1], {"nodes": "n1", "count": 100, "most": None})
        told = json.loads(outcome.out)
        self.assertEqual(told["boots"], many)
        [image] = told["images"]
        self.assertEqual(image["ready"], {"p50": 59.0, "p95": 104.0, "p99": 108.0})
        self.assertEqual((image["boots"], image["booted"], image["failed"]), (100, 100, 0))
        self.assertEqual(image["root"]["p99"], 7.0)

    def test_many_nodes(self) -> None:
        """They are asked about some at a time; what is told is in the order of the moments."""
        names = [f"n{number}" for number in range(AT_ONCE // 100 + 1)]
        early = {**BOOT, "asked": BOOT["asked"] - 1}
        outcome = run("node", "boots", "all-nodes", "--last", "100", "--json", session=[
            (nodes.ExpandNodes, {"names": names}),
            (nodes.ListBoots, {"boots": [BOOT]}), (nodes.ListBoots, {"boots": [early]}),
        ])
        asked = [values["nodes"] for _, values in outcome.calls[1:]]
        self.assertEqual(asked, [",".join(names[:-1]), names[-1]])
        self.assertEqual(json.loads(outcome.out)["boots"], [early, BOOT])

    def test_none(self) -> None:
        """Nodes that never booted."""
        outcome = run("node", "boots", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}), (nodes.ListBoots, {"boots": []}),
        ])
        self.assertEqual((outcome.status, outcome.out), (
            0, "No boot of these nodes is on record.\n"
        ))


class NodeShowTests(SynchronousTestCase):
    def test_own(self) -> None:
        """A titled table, then hints."""
        outcome = run("node", "show", session=[tables(own=[NODE], total=3)])
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        self.assertEqual(outcome.calls, [("cs.nodes.list", {"all": False})])
        self.assertEqual(outcome.out, """
You own the following nodes:

name  type     model      image  ip           netsetup  booted
----  -------  ---------  -----  -----------  --------  ------
n1    virtual  pc-x86-64  img    192.168.1.2  LAN       yes

Use `walt node show --all` to see every node of the platform.
See `walt help show node-ownership`.
""")

    def test_trouble(self) -> None:
        """What keeps nodes from booting is told below the tables."""
        broken = {**NODE, "name": "n2", "booted": False, "trouble": "its image is broken"}
        out = run("node", "show", session=[tables(own=[NODE, broken], total=2)]).out
        self.assertIn("The following nodes cannot boot at present", out)
        self.assertIn("\nn2    its image is broken\n", out)

    def test_nothing(self) -> None:
        """No node of the caller, no node at all, no other node."""
        out = run("node", "show", session=[tables(total=3)]).out
        self.assertIn("You do not own any node.", out)
        outcome = run("node", "show", "--all", session=[tables()])
        self.assertIn("no node yet", outcome.out)
        self.assertEqual(outcome.calls, [("cs.nodes.list", {"all": True})])
        out = run("node", "show", "--all", session=[tables(own=[NODE], total=1)]).out
        self.assertIn("no other nodes", out)
        self.assertTrue(out.endswith("See `walt help show node-ownership`.\n"))

    def test_all(self) -> None:
        """Three tables in their order, with their columns."""
        other = {**NODE, "name": "n3", "owner": "bob", "clonable_image_link": "walt:bob/i"}
        out = run("node", "show", "--all", session=[
            tables(own=[NODE], free=[{**NODE, "name": "n2"}], others=[other], total=3)
        ]).out
        titles = [line.split() for line in out.splitlines() if line.startswith("name")]
        self.assertEqual(titles, [
            ["name", "type", "model", "image", "ip", "netsetup", "booted"],
            ["name", "type", "model", "ip", "netsetup", "booted"],
            ["name", "type", "model", "image-owner", "clonable-image-link", "ip", "netsetup",
             "booted"],
        ])

    def test_names_only(self) -> None:
        """One name a line, nothing else."""
        own = [{**NODE, "name": name} for name in ("n2", "n1")]
        out = run("node", "show", "--names-only", session=[tables(own=own)]).out
        self.assertEqual(out, "n1\nn2\n")

    def test_json(self) -> None:
        """The rows themselves."""
        out = run("node", "show", "--json", session=[objects(own=[NODE], total=1)]).out
        self.assertEqual(json.loads(out), {"own": [NODE], "free": [], "others": []})

    def test_written_json(self) -> None:
        """What a server writes in the form of the command is printed as it is, if it is that."""
        row = json.dumps(NODE, sort_keys=True)
        start = f'{{\n  "free": [],\n  "others": [],\n  "own": [\n    {row}\n  ],\n  "total": '
        shown = []
        for text in (
            f"{start}1\n}}", json.dumps({"own": [NODE], "free": [], "others": [], "total": 1}),
            f"{start}1 }}", f"{start}1\n}}".replace("\n", "\r\n"),
        ):
            answer = [(nodes.ShowNodes, {"tables": Written(text.encode())})]
            shown.append(run("node", "show", "--json", session=answer).out)
        self.assertEqual(set(shown), {f'{start.rpartition(",")[0]}\n}}\n'})

    def test_five_thousand_nodes(self) -> None:
        """A table far above 64 KiB."""
        many = [{**NODE, "name": f"node-{number}"} for number in range(5000)]
        out = run("node", "show", "--names-only", session=[tables(own=many)]).out
        self.assertEqual(out.splitlines(), sorted(node["name"] for node in many))

    def test_reserved(self) -> None:
        """Who has reserved nodes is told below the tables."""
        reserved = {**NODE, "name": "n2", "reserved_by": "bob", "reserved_until": 86400.0}
        out = run("node", "show", session=[tables(own=[NODE, reserved], total=2)]).out
        self.assertRegex(out, "Scripts have reserved the following nodes:(.|\n)*\nn2    bob  ")

    def test_narrow(self) -> None:
        """In a narrow window rows are one below the other, cells that are blank left out."""
        self.patch(terminal, "columns_here", lambda: 30)
        out = run("node", "show", session=[tables(own=[{**NODE, "model": None}], total=1)]).out
        self.assertIn("name      n1\ntype      virtual\nimage     img\n", out)

    def test_senseless(self) -> None:
        """Rows that are not what their columns say."""
        good = tables(own=[NODE])[1]["tables"]
        for wrong in (
            {"own": [NODE]}, {"own": [good["own"][0][1:]]}, {"columns": COLUMNS[1:]}, {"own": None},
        ):
            answer = Written(json.dumps({**good, **wrong}).encode())
            outcome = run("node", "show", session=[(nodes.ListNodes, {"tables": answer})])
            self.assertEqual(outcome.status, 1)
            self.assertIn("the answer of the server makes no sense", outcome.err)


class NodeCommandTests(SynchronousTestCase):
    def test_boot(self) -> None:
        """Image checked, set replaced by names before any change, ownership; then all at once."""
        outcome = run("node", "boot", "my-nodes", "img", session=[
            (nodes.NodeOwnership, {**MINE, "names": ["n1", "n2"]}), (nodes.BootNodes, {"ok": True}),
        ])
        self.assertEqual((outcome.status, outcome.out, outcome.err), (0, "", ""))
        self.assertEqual(outcome.calls, [
            ("cs.nodes.ownership", {"nodes": "my-nodes", "image": "img"}),
            ("cs.nodes.boot", {
                "nodes": "n1,n2", "image": "img", "cause": "image change", **ALONE,
            }),
        ])

    def test_deploy_is_boot(self) -> None:
        """The alias does the same."""
        commands = main.load("node")
        self.assertIs(commands["deploy"].run, commands["boot"].run)

    def test_reboot(self) -> None:
        """The cause of the logs; 1 when a node could not be rebooted (D19)."""
        for words, hard in ((["n1"], False), (["--hard", "n1"], True)):
            for ok in (True, False):
                outcome = run("node", "reboot", *words, session=[
                    (nodes.ExpandNodes, {"names": ["n1"]}), (nodes.NodeOwnership, MINE),
                    (nodes.RebootNodes, {"ok": ok}),
                ])
                self.assertEqual(outcome.status, 0 if ok else 1)
                self.assertEqual(outcome.calls[-1], ("cs.nodes.reboot", {
                    "nodes": "n1", "hard_only": hard, "cause": "reboot requested", **ALONE,
                }))

    def test_not_a_node(self) -> None:
        """A set with a switch stops there."""
        outcome = run("node", "remove", "switch-1", session=[
            (nodes.NodeOwnership, {**MINE, "owned": [], "not_nodes": ["switch-1"]}),
        ])
        self.assertEqual(outcome.status, 1)
        self.assertIn("switch-1", outcome.err)

    def test_create_and_remove(self) -> None:
        """One call each, after the ownership check for the second."""
        outcome = run("node", "create", "n1", session=[(nodes.CreateNode, {})])
        self.assertEqual(outcome.calls, [("cs.nodes.create", {"name": "n1"})])
        outcome = run("node", "remove", "n1", session=[
            (nodes.NodeOwnership, MINE), (nodes.RemoveNode, {}),
        ])
        self.assertEqual(outcome.calls[-1], (
            "cs.nodes.remove", {"name": "n1", "force": False, "keep_logs": False}
        ))

    def test_lines_at_stake(self) -> None:
        """A person is asked before log lines are lost; others are told how to say it."""
        refusal = Conflict("2 log lines of n1 would be lost")
        for words, call, before in (
            (("node", "remove"), nodes.RemoveNode, [(nodes.NodeOwnership, MINE)]),
            (("device", "forget"), devices.ForgetDevice, []),
        ):
            outcome = run(*words, "n1", session=[*before, (call, refusal)])
            self.assertEqual((outcome.status, outcome.err), (1, f"{refusal}\n"))
            self.assertEqual(run(*words, "--force", "--keep-logs", "n1").status, 2)
            for given, values in (
                ("--force", {"force": True, "keep_logs": False}),
                ("--keep-logs", {"force": False, "keep_logs": True}),
            ):
                outcome = run(*words, given, "n1", session=[*before, (call, {})])
                self.assertEqual(outcome.calls[-1][1], {"name": "n1", **values})
                self.assertEqual(outcome.status, 0)
            self.patch(forgetting, "both_terminals", lambda: True)
            for yes in (True, False):
                self.patch(forgetting, "confirm", lambda yes=yes: yes)
                outcome = run(
                    *words, "n1", session=[*before, (call, refusal), *([(call, {})] if yes else [])]
                )
                self.assertEqual((outcome.status, outcome.err), (0 if yes else 1, f"{refusal}\n"))
                self.assertEqual(outcome.calls[-1][1]["force"], yes)
            self.patch(forgetting, "both_terminals", lambda: False)

    def test_wait(self) -> None:
        """0 when booted; an invalid set is an error, rc 1 (Q-02)."""
        outcome = run("node", "wait", "n1", session=[(nodes.WaitNodes, {})])
        self.assertEqual((outcome.status, outcome.calls), (0, [("cs.nodes.wait", {"nodes": "n1"})]))
        outcome = run("node", "wait", "ghost", session=[(nodes.WaitNodes, NotFound("no ghost"))])
        self.assertEqual((outcome.status, outcome.err), (1, "no ghost\n"))

    def test_single_node(self) -> None:
        """A shell or a console takes exactly one node."""
        for command in ("shell", "console"):
            outcome = run("node", command, "my-nodes", session=[
                (nodes.ExpandNodes, {"names": ["n1", "n2"]}),
            ])
            self.assertEqual(outcome.status, 1)
            self.assertIn("exactly one", outcome.err)


class OwnershipTests(SynchronousTestCase):
    def test_acquire(self) -> None:
        """Copies of default images, then a reboot with its cause; refused for own nodes."""
        outcome = run("node", "acquire", "free-nodes", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}),
            (nodes.NodeOwnership, {**MINE, "owned": [], "free": ["n1"]}),
            (nodes.AcquireNodes, {}), (nodes.RebootNodes, {"ok": True}),
        ])
        self.assertEqual(outcome.status, 0)
        self.assertEqual(outcome.calls[2:], [
            ("cs.nodes.acquire", {"nodes": "n1", "owners": []}),
            ("cs.nodes.reboot", {"nodes": "n1", "hard_only": False, "cause": "acquire", **ALONE}),
        ])
        outcome = run("node", "acquire", "n1", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}), (nodes.NodeOwnership, MINE),
        ])
        self.assertEqual(outcome.status, 1)
        self.assertIn("n1", outcome.err)

    def test_release(self) -> None:
        """Boots `default`; refused unless all nodes are the caller's."""
        outcome = run("node", "release", "my-nodes", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}), (nodes.NodeOwnership, MINE),
            (nodes.BootNodes, {"ok": True}),
        ])
        self.assertEqual(outcome.status, 0)
        self.assertEqual(outcome.calls[2:], [
            ("cs.nodes.boot", {"nodes": "n1", "image": "default", "cause": "release", **ALONE}),
        ])
        outcome = run("node", "release", "n1,n2", session=[
            (nodes.ExpandNodes, {"names": ["n1", "n2"]}), (nodes.NodeOwnership, THEIRS),
        ])
        self.assertEqual((outcome.status, len(outcome.calls)), (1, 2))
        self.assertIn("not yours: n1 (bob's), n2 (carol's), n3 (bob's). See", outcome.err)

    def test_owners_are_named_where_nodes_of_others_are_touched(self) -> None:
        """By all commands that ask: one line for each owner."""
        expanded = (nodes.ExpandNodes, {"names": ["n1"]})
        asked = (nodes.NodeOwnership, THEIRS)
        self.patch(terminal, "read_line", lambda: "n")
        for words, session in (
            ("node reboot n", [expanded, asked]), ("node acquire n", [expanded, asked]),
            ("node boot n img", [asked]),
            ("node remove n", [asked]), ("node config n ram=1G", [asked]),
            ("device config n netsetup=NAT", [asked]), ("node shell n", [expanded, asked]),
            ("node console n", [expanded, asked]), ("node run n ls", [expanded, asked]),
            ("node rename n m", [expanded, asked]),
        ):
            outcome = run(*words.split(), session=session)
            self.assertEqual(outcome.status, 1, words)
            self.assertEqual(outcome.err, (
                "Warning: Nodes n1 and n3 belong to bob.\nWarning: Node n2 belongs to carol.\n"
            ), words)


class DeviceCommandTests(SynchronousTestCase):
    def test_rename(self) -> None:
        """A node after the ownership check, a device without."""
        call = ("cs.devices.rename", {"name": "n1", "new_name": "n2"})
        outcome = run("node", "rename", "n1", "n2", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}), (nodes.NodeOwnership, MINE),
            (devices.RenameDevice, {}),
        ])
        self.assertEqual((outcome.status, outcome.out, outcome.calls[-1]), (0, "", call))
        outcome = run("device", "rename", "n1", "n2", session=[(devices.RenameDevice, {})])
        self.assertEqual((outcome.status, outcome.calls), (0, [call]))

    def test_config(self) -> None:
        """Without words it prints, with words it changes, after the ownership check."""
        groups = [{"category": "nodes", "names": ["n1"], "settings": {"ram": "512M", "b": "1"}}]
        outcome = run("node", "config", "n1", session=[
            (devices.GetDeviceConfig, {"groups": groups}),
        ])
        self.assertEqual(
            outcome.out, "Node n1 has the following config applied:\n\nb=1\nram=512M\n"
        )
        self.assertEqual(
            outcome.calls, [("cs.devices.config", {"devices": "n1", "nodes_only": True})]
        )
        outcome = run("device", "config", "switch-1", "type=switch", "ram=1G", session=[
            (nodes.NodeOwnership, {**MINE, "owned": [], "not_nodes": ["switch-1"]}),
            (devices.SetDeviceConfig, {}),
        ])
        self.assertEqual(outcome.calls[-1], ("cs.devices.set_config", {
            "devices": "switch-1", "settings": ["type=switch", "ram=1G"], "nodes_only": False,
        }))

    def test_forget(self) -> None:
        """`done.`; a refusal is 1, an unknown device, too."""
        outcome = run("device", "forget", "--force", "x", session=[(devices.ForgetDevice, {})])
        self.assertEqual((outcome.status, outcome.out), (0, "done.\n"))
        self.assertEqual(outcome.calls, [
            ("cs.devices.forget", {"name": "x", "force": True, "keep_logs": False})
        ])
        for error, status in ((NotFound("no x"), 1), (Conflict("has logs"), 1)):
            outcome = run("device", "forget", "x", session=[(devices.ForgetDevice, error)])
            self.assertEqual((outcome.status, outcome.err), (status, f"{error}\n"))

    def test_blink(self) -> None:
        """On, then off; a duration that is no number is refused."""
        outcome = run("node", "blink", "n1", "0", session=[
            (nodes.ExpandNodes, {"names": ["n1"]}), (nodes.WaitNodes, {}),
            (nodes.BlinkNode, {}), (nodes.BlinkNode, {}),
        ])
        self.assertEqual(outcome.status, 0)
        self.assertEqual([values["on"] for _, values in outcome.calls[2:]], [True, False])
        self.assertEqual(run("node", "blink", "n1", "-1s", sessions=[]).status, 2)
        self.assertIn("number", run("node", "blink", "n1", "long", sessions=[]).err)


class ListingTests(SynchronousTestCase):
    def test_images(self) -> None:
        """The working set; with --all the others."""
        row = {"name": "img", "in_use": True, "created": 1.8e9, "size": 1_250_000_000,
               "compatibility": ["pc-x86-64"], "user": "bob", "clonable_link": "walt:bob/img"}
        found = {"own": [row], "others": [], "default": [], "hidden": 1, "total": 2}
        outcome = run("image", "show", session=[(images.ShowImages, {"tables": dict(found)})])
        self.assertEqual(outcome.calls, [("cs.images.show", {"all": False, "refresh": False})])
        self.assertIn("name  in-use  created              size    compatibility\n", outcome.out)
        self.assertRegex(outcome.out, r"img   yes     2027-01-1\d [0-9:]{8}  1.2 GB  pc-x86-64\n")
        self.assertIn("--all", outcome.out)
        outcome = run("image", "show", "--all", "--refresh", session=[
            (images.ShowImages, {"tables": {**found, "others": [row], "default": [row]}}),
        ])
        self.assertEqual(outcome.calls, [("cs.images.show", {"all": True, "refresh": True})])
        self.assertEqual(outcome.out.count("walt:bob/img"), 2)
        self.assertIn("walt image clone <clonable-link>", outcome.out)
        self.assertIn("walt image search", outcome.out)
        out = run("image", "show", "--names-only", session=[
            (images.ShowImages, {"tables": {**found, "own": []}}),
        ]).out
        self.assertEqual(out, "")

    def test_names_only_conflict(self) -> None:
        """rc 1, as specified."""
        outcome = run("image", "show", "--names-only", "--all", sessions=[])
        self.assertEqual(outcome.status, 1)

    def test_devices(self) -> None:
        """Columns without any value are dropped; unknown devices apart."""
        known = [{"name": "walt-server", "ip": "192.168.1.1", "mac": "52:54:00:00:00:01",
                  "type": "server", "node_type": None, "netsetup": None}]
        outcome = run("device", "show", session=[
            (devices.ShowDevices, {"tables": {"known": known, "unknown": known}}),
        ])
        self.assertNotIn("netsetup", outcome.out)
        self.assertEqual(outcome.out.count("walt-server"), 2)

    def test_services(self) -> None:
        """State, and the last trouble with its time; JSON has everything."""
        rows = [
            {"name": "dhcpd", "state": "not answering", "running": True, "pid": 7, "restarts": 1,
             "status": 137, "trouble": "no answer within 10 s", "trouble_time": 1.8e9},
            {"name": "named", "state": "restarting in 4 s", "running": False, "pid": None,
             "restarts": 3, "status": 1, "trouble": None, "trouble_time": None},
        ]
        shown = run("advanced", "services", session=[(calls.ShowServices, {"rows": rows})]).out
        self.assertRegex(
            shown, r"(?m)^ *dhcpd +not answering +7 +1 +2027-01-1\d [0-9:]{8} +no answer within"
        )
        self.assertRegex(shown, r"(?m)^ *named +restarting in 4 s +3$")
        outcome = run(
            "advanced", "services", "--json", session=[(calls.ShowServices, {"rows": rows})]
        )
        self.assertEqual(json.loads(outcome.out), rows)

    def test_json_everywhere(self) -> None:
        """Every command that lists prints JSON when asked."""
        answers: dict[tuple[str, str], list[Any]] = {
            ("node", "show"): [objects()],
            ("image", "show"): [(images.ShowImages, {"tables": {
                "own": [], "others": [], "default": [], "hidden": 0, "total": 0}})],
            ("device", "show"): [(devices.ShowDevices, {"tables": {"known": [], "unknown": []}})],
            ("advanced", "services"): [(calls.ShowServices, {"rows": []})],
            ("advanced", "workflows"): [(calls.ShowWorkflows, {"rows": []})],
            ("help", "list"): [],
        }
        for (category, name), session in answers.items():
            outcome = run(category, name, "--json", session=session)
            self.assertEqual(outcome.status, 0)
            json.loads(outcome.out)


class ErrorTests(SynchronousTestCase):
    def test_refusal(self) -> None:
        """The server's sentence on stderr, nothing else, rc 1."""
        for error in (Conflict("taken"), Invalid("bad"), Unavailable("later")):
            outcome = run("node", "create", "n1", session=[(nodes.CreateNode, error)])
            self.assertEqual((outcome.status, outcome.out), (1, ""))
            self.assertEqual(outcome.err, f"{error}\n")

    def test_long_refusal(self) -> None:
        """A text of 1 MB arrives whole."""
        error = Invalid("x" * 1_000_000)
        outcome = run("node", "create", "n1", session=[(nodes.CreateNode, error)])
        self.assertEqual(outcome.err, f"{error}\n")

    def test_server_bug(self) -> None:
        """Said to be one."""
        outcome = run("node", "create", "n1", session=[
            (nodes.CreateNode, InternalError("internal error (reference 1)")),
        ])
        self.assertIn("unexpected server-side issue: internal error (reference 1)", outcome.err)

    def test_connection_lost(self) -> None:
        """An answer that never comes, or garbage: communication issue, rc 1."""
        for answers in (b"", b"\xff\xff garbage", b"\0"):
            with mock.patch.object(scripted, "answer_bytes", lambda script, data=answers: data):
                # The prepared end is shut so that the client sees the end of the stream.
                original = scripted._Connections._pair

                def pair(data: bytes, original: Any = original) -> Any:
                    ours, theirs = original(data)
                    ours.shutdown(1)
                    return ours, theirs

                with mock.patch.object(scripted._Connections, "_pair", staticmethod(pair)):
                    outcome = run("node", "create", "n1")
            self.assertEqual(outcome.status, 1)
            self.assertIn("communication issue", outcome.err)

    def test_call_backs(self) -> None:
        """Texts of the server are relayed as they come, before the answer."""
        outcome = run("node", "create", "n1", session=[
            (calls.StdoutWrite, {"text": "to stdout é\n"}),
            (calls.SetBusyLabel, {"label": "busy"}),
            (calls.StderrWrite, {"text": "e" * 100_000 + "\n"}), (nodes.CreateNode, {}),
        ])
        self.assertEqual((outcome.status, outcome.out), (0, "to stdout é\n"))
        self.assertEqual(outcome.err, "e" * 100_000 + "\n")

    def test_busy_labels(self) -> None:
        """What the indicator of a terminal says while each command waits for the server."""
        shown: list[str] = []

        class Recorded(terminal.Busy):
            def __init__(self, label: str) -> None:
                super().__init__(label)
                shown.append(label)

            def wait(self, sock: Any) -> None:
                """Draw nothing."""

        self.patch(terminal, "Busy", Recorded)
        self.patch(terminal, "both_terminals", lambda: True)
        self.patch(registries, "ask", lambda question: "walter")
        self.patch(registries, "ask_password", lambda question: "secret")
        self.patch(registries, "keep", lambda label, entry: None)
        names = {"names": ["n1"]}
        for label, words, session in (
            ("Registering virtual node", "node create n1", [(nodes.CreateNode, {})]),
            ("Rebooting", "node reboot n1", [
                (nodes.ExpandNodes, names), (nodes.NodeOwnership, MINE),
                (nodes.RebootNodes, {"ok": True}),
            ]),
            ("Node bootup notification pending", "node wait n1", [(nodes.WaitNodes, {})]),
            ("Searching", "image search x", [
                (images.ListRegistries, {"rows": []}), (images.SearchImages, {"rows": []}),
            ]),
            ("Validating / Cloning", "image clone walt:bob/i", [
                (images.CloneImage, {"ok": True}),
            ]),
            ("Validating / Publishing", "image publish i", [
                (images.ListRegistries, {"rows": [{"label": "lab", "description": ""}]}),
                (images.PublishImage, {"link": "lab:alice/i"}),
            ]),
            ("Server is working", "image show", [(images.ShowImages, {"tables": {
                "own": [], "others": [], "default": [], "hidden": 0, "total": 0}})]),
        ):
            shown.clear()
            self.assertEqual(run(*words.split(), session=session).status, 0, words)
            self.assertEqual(set(shown), {label}, words)
        found = run("image", "search", "x", session=[
            (images.ListRegistries, {"rows": []}), (images.SearchImages, {"rows": [{
                "user": "bob", "name": "x", "location": "walt (other user)",
                "compatibility": ["rpi-b", "rpi-2-b"], "clonable_link": "walt:bob/x",
                "link": "walt:bob/x",
            }]}),
        ])
        self.assertRegex(
            found.out, r"bob +x +walt \(other user\) +rpi-\[\S+\] +walt:bob/x"
        )
        shown.clear()
        run("image", "clone", "lab:bob/i", session=[
            (images.CloneImage, CredentialsNeeded("lab needs credentials")),
            (images.RegistryLogin, {}), (images.CloneImage, {"ok": True}),
        ])
        self.assertEqual(shown[-3:], [
            "Validating / Cloning", "Authenticating to the registry", "Validating / Cloning",
        ])

    def test_unreachable(self) -> None:
        """rc 1, where and what to do."""
        for words in (["node", "show"], ["node", "run", "n1", "ls"]):
            err = io.StringIO()
            with environment(WALT_SERVER="unix:/nonexistent/rpc.sock", WALT_USERNAME=USER), \
                    contextlib.redirect_stderr(err):
                status = main.run(words)
            self.assertEqual(status, 1)
            self.assertIn("network connection failure", err.getvalue())
            self.assertIn("/nonexistent/rpc.sock", err.getvalue())


class SettingsTests(SynchronousTestCase):
    def test_targets(self) -> None:
        """The environment wins; a server is its own default; streams are beside calls."""
        self.patch(settings, "is_server", lambda: True)
        for named, rpc, streams in (
            ("", "/run/walt/rpc.sock", "/run/walt/streams.sock"),
            ("localhost", "/run/walt/rpc.sock", "/run/walt/streams.sock"),
            ("unix:/x/rpc.sock", "/x/rpc.sock", "/x/streams.sock"),
        ):
            with environment(WALT_SERVER=named):
                self.assertEqual(settings.rpc_target().path, rpc)
                self.assertEqual(settings.stream_target().path, streams)
        with environment(WALT_SERVER="tcp:host"):
            calls, streams = settings.rpc_target(), settings.stream_target()
            self.assertEqual((calls.host, calls.port, calls.encrypted), ("host", 12345, False))
            self.assertEqual((streams.path, streams.port), (None, 12347))
        with environment(WALT_SERVER="host", HOME=self.mktemp(), WALT_USERNAME="bob"):
            refused = self.assertRaises(Failure, settings.rpc_target)
            self.assertIn("walt advanced add-user bob", str(refused))
        with environment(WALT_USERNAME="bob"):
            self.assertEqual(settings.username(), "bob")


class HistoryRangeTests(SynchronousTestCase):
    def bounds(self, text: str, *session: Any) -> Any:
        outcome = run(
            "log", "show", "--history", text, session=session, streams=[[(b"R", b'{"status": 0}')]]
        )
        self.assertEqual((outcome.status, outcome.err), (0, ""), text)
        [(_, parameters, _)] = outcome.streams
        return parameters["start"], parameters["end"]

    def test_ranges(self) -> None:
        """Open bounds, relative dates of the server's clock, checkpoints."""
        moment = (calls.GetTime, {"time": 1000.0})
        self.assertEqual(self.bounds("full"), (None, None))
        self.assertEqual(self.bounds("FULL"), (None, None))
        self.assertEqual(self.bounds(":"), (None, None))
        self.assertEqual(self.bounds("-5m:", moment), (700.0, None))
        self.assertEqual(self.bounds(":-30s", moment), (None, 970.0))
        self.assertEqual(self.bounds("-1m:-10s", moment, moment), (940.0, 990.0))
        self.assertEqual(
            self.bounds("start:", (logs.CheckpointTime, {"time": 5.5})), (5.5, None)
        )

    def test_mistakes(self) -> None:
        """rc 2 (a checkpoint that is not there: 1), and a page of help."""
        moment = (calls.GetTime, {"time": 1000.0})
        for text, session in (
            ("yesterday", []), ("a:b:c", []), ("-5x:", []), ("-m:", []), ("-5M:", []),
            ("--5m:", []), ("-1s:-1m", [moment, moment]),
            ("ghost:", [(logs.CheckpointTime, NotFound("no checkpoint ghost"))]),
        ):
            outcome = run("log", "show", "--history", text, session=session)
            status = 1 if text == "ghost:" else 2
            self.assertEqual((outcome.status, outcome.out), (status, ""), text)
            self.assertIn("log-history", outcome.err)


class LogShowTests(SynchronousTestCase):
    RECORDS = [
        [0.5, "n1", "exp", "first"], [59.9999999, "n1", "exp", "né"], [60.25, "n1", "s", ""],
    ]

    def show(self, *words: str, records: Any = None, extra: Any = ()) -> Any:
        lines = b"".join(
            encode(block_of([(stamp, issuer, stream, line)]), {issuer: issuer})
            for stamp, issuer, stream, line in records or self.RECORDS
        )
        cut = len(lines) // 2  # frames need not end with a block
        return run("log", "show", "--realtime", *words, streams=[[
            (b"D", lines[:cut]), (b"D", lines[cut:]), *extra, (b"R", b'{"status": 0}'),
        ]], sessions=[], variables={"TZ": "UTC"})

    def test_default_format(self) -> None:
        """Local time with microseconds, as the format string itself gives."""
        outcome = self.show()
        self.assertEqual(outcome.status, 0)
        self.assertRegex(outcome.out.splitlines()[0], r"^\d\d:\d\d:00\.500000 n1\.exp -> first$")
        template = "{timestamp:%H:%M:%S.%f} {issuer}.{stream} -> {line} "
        self.assertEqual(
            [line.rstrip() for line in self.show("--format", template).out.splitlines()],
            [line.rstrip() for line in outcome.out.splitlines()],
        )

    def test_dates(self) -> None:
        """Lines of a range that goes back further than a day have their date."""
        now = time.time()
        line = encode(block_of([(now - 1, "n1", "exp", "first")]), {"n1": "n1"})
        answer = (calls.GetTime, {"time": now})
        date = r"\d{4}-\d\d-\d\d "
        for history, session, shown in (
            ("-1h:", [answer], ""), ("-1d:", [answer], ""), ("-2d:", [answer], date),
            ("-2d:-40h", [answer, answer], date), ("full", [], date), (":", [], date),
        ):
            for words, dated in (((), shown), (("--format", "{timestamp:%H:%M:%S.%f} x"), "")):
                outcome = run(
                    "log", "show", "--history", history, *words, session=session,
                    streams=[[(b"D", line), (b"R", b'{"status": 0}')]],
                )
                self.assertRegex(outcome.out, rf"^{dated}\d\d:\d\d:\d\d\.", history)

    def test_formats(self) -> None:
        """Templates, JSON; a template that cannot be applied: rc 1 and a page."""
        self.assertEqual(self.show("--format", "{line}|{issuer}").out, "first|n1\nné|n1\n|n1\n")
        out = self.show("--json").out
        self.assertEqual(json.loads(out.splitlines()[0]), {
            "timestamp": 0.5, "issuer": "n1", "stream": "exp", "line": "first",
        })
        for template in ("{nothing}", "{", "{line:d}", "{0}", "{line.x}"):
            outcome = self.show("--format", template)
            self.assertEqual(outcome.status, 1, template)
            self.assertIn("log-format", outcome.err)

    def test_query(self) -> None:
        """Issuers, aliases, streams, expression, shortcuts."""
        for words, issuers, streams, lines in (
            ([], "my-nodes", None, None),
            (["--nodes", "n1", "--streams", "a.*", "err"], "n1", "a.*", "err"),
            (["--emitters", "n2"], "n2", None, None),
            (["--platform"], "server", "platform.*", None),
            (["--server"], "server", "daemon.*", None),
        ):
            [(request, parameters, _)] = self.show(*words).streams
            self.assertEqual(request, "REQ_DUMP_LOGS")
            self.assertEqual(parameters, {
                "issuers": issuers, "streams": streams, "lines": lines, "history": False,
                "realtime": True, "username": USER, "exclude_consoles": streams is None,
            })
        for words in (["--consoles"], ["--streams", "console"]):
            [(_, parameters, _)] = self.show(*words).streams
            self.assertFalse(parameters["exclude_consoles"], words)

    def test_nothing_asked(self) -> None:
        """Neither history nor realtime, in any case (Q-09): told, rc 2, no server."""
        for words in ([], ["--history", "none"], ["--history", "NONE"]):
            outcome = run("log", "show", *words, sessions=[])
            self.assertEqual((outcome.status, outcome.out), (2, ""))
            self.assertIn("log-show", outcome.err)

    def test_bad_expression(self) -> None:
        """Told before any connection, rc 2: a script does not go on."""
        for command in (
            ["show", "--realtime"], ["wait"], ["export", "--history", "full", "file"],
        ):
            for words in (["("], ["--streams", "[", "x"]):
                outcome = run("log", *command, *words, sessions=[])
                self.assertEqual((outcome.status, outcome.out), (2, ""), (command, words))
                self.assertIn("regular expression", outcome.err)

    def test_ends(self) -> None:
        """Messages on stderr, an error of the server, the loss of the connection."""
        outcome = self.show(extra=[(b"M", b"too slow\n")])
        self.assertEqual(outcome.err, "too slow\n")
        outcome = run("log", "show", "--realtime", sessions=[], streams=[
            [(b"R", b'{"status": 1, "error": "bad set", "code": "INVALID"}')],
        ])
        self.assertEqual((outcome.status, outcome.err), (1, "bad set\n"))

    def test_many_lines(self) -> None:
        """Nothing is lost in bulk."""
        records = [[number / 7, "n1", "exp", f"line {number}"] for number in range(20_000)]
        lines = self.show(records=records).out.splitlines()
        self.assertEqual([line.split(" -> ")[1] for line in lines],
                         [record[3] for record in records])


class HelpPageTests(SynchronousTestCase):
    def test_pages_are_pages(self) -> None:
        """Each begins with its title, fits a terminal, and has something to say."""
        for name, title in topics().items():
            text = run("help", "show", name, sessions=[]).out
            self.assertTrue(text.startswith(f"# {title}\n\n"), name)
            self.assertTrue(title, name)
            self.assertLess(max(len(line) for line in text.splitlines()), 110, name)
            self.assertTrue(text.endswith("\n"), name)

    def test_show(self) -> None:
        """Raw Markdown when it is not a terminal; help-intro by default; no server."""
        outcome = run("help", "show", sessions=[])
        self.assertEqual(outcome.status, 0)
        self.assertTrue(outcome.out.startswith("# "))
        self.assertEqual(outcome.out, run("help", "show", "help-intro", sessions=[]).out)

    def test_unknown(self) -> None:
        """A hint on stderr, rc 2."""
        outcome = run("help", "show", "../secret", sessions=[])
        self.assertEqual((outcome.status, outcome.out), (2, ""))
        self.assertIn("walt help list", outcome.err)

    def test_list(self) -> None:
        """An intro line, then groups by reader: `topic -- title`; every topic once.

        The first group is in the order of reading, the others are sorted.
        """
        groups = run("help", "list", sessions=[]).out.split("\n\n")[1:]
        self.assertEqual(groups[0].splitlines()[0], "To begin with:")
        found = []
        for group in groups:
            names = [line.split(" -- ")[0].rstrip() for line in group.splitlines()[1:]]
            if found:
                self.assertEqual(names, sorted(names))
            found += names
        self.assertEqual(sorted(found), list(topics()))

    def test_search(self) -> None:
        """Pages and commands that have all words, in any case, with lines that have one."""
        outcome = run("help", "search", "Console", sessions=[])
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        lines = outcome.out.splitlines()
        self.assertIn("walt node console -- attach to the console of a virtual node", lines)
        at = lines.index("walt help show node-console -- The console of a virtual node")
        self.assertIn("console", lines[at + 1].lower())
        self.assertTrue(lines[at + 1].startswith("    "))
        for line in run("help", "search", "console", "CTRL-A", sessions=[]).out.splitlines():
            if not line.startswith(" "):
                self.assertTrue(line.startswith("walt help show node-console"), line)
        outcome = run("help", "search", "console", "marmalade", sessions=[])
        self.assertEqual((outcome.status, outcome.out), (1, ""))
        self.assertIn("'console' and 'marmalade'", outcome.err)
        self.assertEqual(run("help", "search", sessions=[]).status, 2)
