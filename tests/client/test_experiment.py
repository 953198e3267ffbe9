"""Experiment files and archives: what is wrong is told, what differs is found."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.client.local_shells import LocalShells
from walt.client.commands import experiment as command
from walt.client.errors import Failure, Refused
from walt.client.exceptions import TimeoutException
from walt.client.experiment import casting, detached, fetching, holding
from walt.client.experiment.archive import Archive, Folder, write_json
from walt.client.experiment.casting import Candidate, Cast, choose
from walt.client.experiment.channels import NotBegun
from walt.client.experiment.comparing import compare
from walt.client.experiment.document import Errors
from walt.client.experiment.log_counts import counts_of, index
from walt.client.experiment.model import Experiment, Limits
from walt.client.experiment.reading import load, parsed
from walt.client.experiment.replaying import with_images
from walt.client.experiment.sealing import seal, verify
from walt.client.scripting import link as links
from walt.client.scripting.running import Result

SMALL = """\
name: small
roles:
  a: {model: "pc-*", settings: {ram: 512M}}
  b: {count: 2}
variables:
  SIZE: [1, 2]
  MODE: x
repetitions: 2
measure:
  - a: echo 1 > out
    save: out
    timeout: 90s
results:
  value: {file: a/out, pattern: "([0-9.]+)", tolerance: 10%}
limits: {boot: 5m, retries: 1}
"""
WAYS = {"n1": [{"name": "sw1", "mac": "02:00:00:00:01:01", "port": "3"}]}
CLOCK = [[1e9, 0.0, 0.01], [1e9 + 300, 0.0, 0.01]]  # moment, offset, error


def linked(words: str) -> str:
    """Return the text with a link on line 6."""
    return SMALL.replace("variables:", f"links:\n  - {{{words}}}\nvariables:")


# Each text has one thing wrong, on the line and with the words beside it.
WRONG = (
    ("name: [", 1, "no YAML"),
    (SMALL.replace("name: small", "nmae: small"), 1, "did you mean name?"),
    (SMALL.replace("  a: {", "  all: {"), 3, "name the role otherwise"),
    (SMALL.replace("  a: {", "  A: {"), 3, "small letters"),
    (SMALL.replace("count: 2", "count: 0"), 4, "roles.b.count: expected a whole number from 1"),
    (SMALL.replace("count: 2", "count: yes"), 4, "expected a whole number"),
    (SMALL.replace("  SIZE:", "  PATH:"), 6, "name it otherwise"),
    (SMALL.replace("  SIZE:", "  size:"), 6, "capital letters"),
    (SMALL.replace("[1, 2]", "[]"), 6, "at least one value"),
    (SMALL.replace("repetitions: 2", "repetitions: 9999"), 1, "more than 10000 points"),
    (SMALL.replace("- a: echo", "- c: echo"), 10, "there is no role c"),
    (SMALL.replace("- a: echo", "- a: echo\n    b: echo"), 10, "expected one role"),
    (SMALL.replace("- a: echo 1 > out", "- a: {shell: x}"), 10, "did you mean script?|no such key"),
    (SMALL.replace("- a: echo 1 > out", "- a: {script: a/b}"), 10, "is not the name of a file"),
    (SMALL.replace("    save: out", "    save: ../out"), 11, "is not the name of a file"),
    (SMALL.replace("    save: out", "    save: out-$SIZE"), 11, "variables reach commands alone"),
    (SMALL.replace("ram: 512M", 'ram: "${RAM}"'), 3, "variables reach commands alone"),
    (SMALL.replace("    save", "\tsave"), 11, "indent with spaces"),
    (SMALL.replace("timeout: 90s", "timeout: soon"), 12, "expected a duration"),
    (SMALL.replace("timeout: 90s", "ready: x"), 12, "it goes with `start: yes`"),
    (SMALL.replace("a/out", "a/other"), 14, "no step of `measure` saves it"),
    (SMALL.replace("([0-9.]+)", "[0-9.]+"), 14, "one group"),
    (SMALL.replace("([0-9.]+)", "("), 14, "no regular expression"),
    (SMALL.replace("10%", "1000%"), 14, "expected a share"),
    (SMALL.replace("name: small", "name: small\nname: other"), 2, "is there twice"),
    (SMALL.replace("name: small", "name: &x small"), 0, ""),
    (linked("between: [a, c]"), 6, "expected two roles of this file"),
    (linked("latency: 8ms"), 6, "between is missing"),
    (linked("between: [a, b], latency: 8"), 6, "such as 8ms"),
    (linked("between: [a, b], bandwidth: fast"), 6, "such as 100Mbps"),
    (linked("between: [a, b], neighbours: yes, latency: 8ms"), 6, "has no such limits"),
    (linked("between: [a, b]}\n  - {between: [b, a]"), 7, "there twice"),
    (linked("between: [a, b]").replace("ram: 512M", "networks: x"), 6, "a setting networks"),
    (SMALL.replace("count: 2", "count: *x"), 4, "no YAML|aliases"),
)


# ... and these have something wrong that a library trips over.
ODD = (
    SMALL.replace("([0-9.]+)", "(a{99999999999})"),
    SMALL.replace("name: small", "name: !!bool [x]"),
    SMALL + "logs: {streams: '*'}\n", SMALL.replace("name: small", 'name: ""'),
    SMALL.replace("    save: out", '    save: ["", out]'),
    SMALL.replace("- a: echo 1 > out", '- a: {script: ""}'),
    SMALL.replace("  value:", "  seconds:"), SMALL.replace("([0-9.]+)", "([[a]+)"),
    SMALL.replace("- a: echo 1 > out", "- a: ~"), SMALL.replace("  a: {", "  ? [a]\n  : {"),
)


class ReadingTests(SynchronousTestCase):
    def test_what_libraries_trip_over(self) -> None:
        """It is told as everything else."""
        for text in ODD:
            errors = Errors()
            parsed(text, errors)
            self.assertTrue(errors, text)

    def test_as_it_is_written(self) -> None:
        """Numbers are not made anew, and `true` is a command."""
        errors = Errors()
        found = parsed(
            SMALL.replace("[1, 2]", "[1.10, 010, 1e3, 0x10, yes]").replace(
                "- a: echo 1 > out", "- a: true"
            ), errors,
        )
        self.assertEqual(errors, [])
        assert found is not None
        self.assertEqual(found.variables["SIZE"], ("1.10", "010", "1e3", "0x10", "yes"))
        self.assertEqual(found.measure[0].command, "true")

    def test_what_a_file_says(self) -> None:
        """Points are all combinations, then all of them again."""
        errors = Errors()
        found = parsed(SMALL, errors)
        self.assertEqual(errors, [])
        assert found is not None
        self.assertEqual([str(point) for point in found.points()], [
            "SIZE=1 MODE=x #1", "SIZE=2 MODE=x #1", "SIZE=1 MODE=x #2", "SIZE=2 MODE=x #2",
        ])
        self.assertEqual(
            (found.roles[0].settings, found.roles[1].count, found.measure[0].timeout,
             found.limits, found.results[0].tolerance),
            ({"ram": "512M"}, 2, 90.0, Limits(300.0, 300.0, 1), 0.1),
        )

    def test_what_is_wrong(self) -> None:
        """The line is told, and how to mend it."""
        for text, line, words in WRONG:
            errors = Errors()
            parsed(text, errors)
            if not line:
                self.assertEqual(errors, [], text)
                continue
            self.assertTrue(any(
                number == line and any(word in told for word in words.split("|"))
                for number, told in errors
            ), (line, words, errors))

    def test_all_at_once(self) -> None:
        """Everything that is wrong is told together, in the order of the file."""
        errors = Errors()
        parsed(SMALL.replace("count: 2", "count: x").replace("90s", "soon"), errors)
        self.assertEqual(
            [line.split(":")[1] for line in errors.told("f").splitlines()], ["4", "12"]
        )

    @given(st.text() | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
        | st.dictionaries(st.sampled_from(
            ["name", "roles", "measure", "a", "results", "limits", "variables", "logs", "file"]
        ) | st.text(), inner), max_leaves=20,
    ).map(json.dumps))
    def test_any_text(self, text: str) -> None:
        """It is an experiment, or something is said to be wrong."""
        errors = Errors()
        found = parsed(text, errors)
        self.assertTrue(errors or isinstance(found, Experiment))

    def test_scripts(self) -> None:
        """They lie beside the file; lines end as shells of nodes want it; others are refused."""
        place = Path(self.mktemp())
        place.mkdir()
        file = place / "e.yaml"
        file.write_text(SMALL.replace("- a: echo 1 > out", "- a: {script: go.sh}"))
        error = self.assertRaises(Failure, load, file)
        self.assertIn("script go.sh cannot be read: ", str(error))
        (place / "go.sh").write_bytes(b"echo 1\r\necho 2\r\n")
        _, _, scripts = load(file)
        self.assertEqual(scripts, {"go.sh": "echo 1\necho 2\n"})


class CastingTests(SynchronousTestCase):
    def test_roles(self) -> None:
        """What disturbs nobody is first; the rarest model is not given away; --map wins."""
        errors = Errors()
        experiment = parsed(SMALL, errors)
        assert experiment is not None
        nodes = [
            Candidate("pc1", "pc-x86-64", "bob", "", False, False),
            Candidate("pc2", "pc-x86-64", None, "", False, False),
            Candidate("pi1", "rpi-3-b", "ann", "", False, True),
            Candidate("pi2", "rpi-3-b", "ann", "", False, False),
        ]
        found = choose(experiment, nodes, "ann", {})
        self.assertEqual(found.nodes, {"a": ["pc2"], "b": ["pi2", "pi1"]})
        self.assertEqual(found.disturbed, ["pi1: rpi-3-b, yours, in use"])
        found = choose(experiment, nodes, "ann", {"a": ["pc1"]})
        self.assertEqual(found.nodes, {"a": ["pc1"], "b": ["pi2", "pc2"]})
        self.assertEqual(found.disturbed, ["pc1: pc-x86-64, bob's"])
        taken = choose(experiment, [replace(nodes[0], reserved=True), *nodes[2:]], "ann", {})
        self.assertEqual(taken.reserved, ["pc1"])
        found = choose(experiment, nodes[2:], "ann", {})
        self.assertEqual(found.missing, ["a: 1 more pc-* of 1"])
        for mapped, told in (
            ({"x": ["pc1"]}, "there is no role x"), ({"a": ["pc9"]}, "there is no node pc9"),
            ({"a": ["pc1", "pc2"]}, "a count of 1"), ({"a": ["pi1"]}, "is a rpi-3-b"),
            ({"a": ["pc1"], "b": ["pc1"]}, "two roles"),
        ):
            error = self.assertRaises(Failure, choose, experiment, nodes, "ann", mapped)
            self.assertIn(told, str(error))

    def test_many(self) -> None:
        """Roles of many nodes need no more steps than there are nodes; what lacks is told."""
        experiment = parsed(
            "name: x\nroles:\n  a: {count: 700}\n  b: {count: 700}\n  c: {model: y}\nmeasure:\n"
            "  - a: id\n", Errors()
        )
        assert experiment is not None
        nodes = [
            Candidate(f"n{number:04d}", "x" if number else "y", None, "", False, False)
            for number in range(1200)
        ]
        found = choose(experiment, nodes, "ann", {})
        self.assertEqual([len(names) for names in found.nodes.values()], [700, 499, 1])
        self.assertEqual(found.missing, ["b: 201 more node of 700"])

    def test_whenever_it_is_possible(self) -> None:
        """A node that one role could do without goes to the role that could not."""
        experiment = parsed(
            "name: x\nroles:\n  a: {model: 'pc-*'}\n  b: {model: '*-64'}\n"
            "  c: {model: rpi-64}\nmeasure:\n  - a: id\n", Errors()
        )
        assert experiment is not None
        nodes = [
            Candidate("n1", "pc-x86", None, "", False, False),
            Candidate("n2", "pc-x86-64", "ann", "", False, False),
            Candidate("n3", "rpi-64", None, "", False, False),
        ]
        found = choose(experiment, nodes, "ann", {})
        self.assertEqual(found.nodes, {"a": ["n1"], "b": ["n2"], "c": ["n3"]})
        self.assertEqual(found.missing, [])


    def test_links(self) -> None:
        """Networks of their own have names of the run; neighbours are at one switch."""
        found = parsed(linked("between: [a, b], latency: 8ms, bandwidth: 1Gbps"), Errors())
        assert found is not None
        self.assertEqual(found.networks("b", "0123456789ab"), ["abcdefghij-a[lat=8ms,bw=1Gbps]"])
        nodes = [
            Candidate("p1", "pc-x86-64", "ann", "", False, False, virtual=False),
            Candidate("v1", "pc-x86-64", None, "", False, False),
            Candidate("v2", "rpi-3-b", None, "", False, False),
            Candidate("v3", "rpi-3-b", None, "", False, False),
        ]
        cast = choose(found, nodes, "ann", {})
        self.assertEqual((cast.nodes, cast.missing), ({"a": ["v1"], "b": ["v2", "v3"]}, []))
        cast = choose(found, nodes[:1], "ann", {})
        self.assertEqual(cast.missing[0], "a: 1 more pc-* of 1, virtual")
        found = parsed(linked("between: [a, b], neighbours: yes"), Errors())
        assert found is not None
        self.assertEqual(found.networks("b", "0" * 12), [])
        nodes = [
            Candidate("n1", "pc-x86-64", "ann", "", False, False, switch="sw1"),
            Candidate("n2", "pc-x86-64", "bob", "", False, False, switch="sw2"),
            Candidate("n3", "rpi-3-b", None, "", False, False, switch="sw2"),
            Candidate("n4", "rpi-3-b", None, "", False, False, switch="sw1"),
            Candidate("n5", "rpi-3-b", None, "", False, False, switch="sw2"),
            Candidate("n6", "rpi-3-b", "ann", "", False, False),
        ]
        cast = choose(found, nodes, "ann", {})
        self.assertEqual((cast.nodes, cast.missing), ({"a": ["n2"], "b": ["n3", "n5"]}, []))
        cast = choose(found, nodes[:4], "ann", {})
        self.assertEqual(
            cast.missing[-1], "a, b: no switch that is known has nodes for all of them"
        )


class ReplayTests(SynchronousTestCase):
    def test_images(self) -> None:
        """By their ids, whatever their names; another one of that name only where it may be."""
        experiment = parsed(SMALL.replace('model: "pc-*"', 'model: "pc-*", image: x'), Errors())
        assert experiment is not None
        manifest = {
            "roles": {"a": ["n1"], "b": ["n2"]}, "images": {"ann/x:latest": "1" * 64,
                                                            "ann/d:latest": "2" * 64},
            "nodes": {"n1": {"image": "ann/x:latest"}, "n2": {"image": "ann/d:latest"}},
        }
        for own, exact, images, missing, notes in (
            ({"x": "1" * 64, "d": "2" * 64}, True, ["x", "d"], [], []),
            ({"y": "1" * 64, "d": "2" * 64}, True, ["y", "d"], [], ["a: y, the same image as x"]),
            ({"x": "3" * 64}, True, ["x", "default"], ["a: the image x (id 111111111111)",
                                                      "b: the image d (id 222222222222)"], []),
            ({"x": "3" * 64}, False, ["x", "default"], [], [
                "a: x of this platform is another image",
                "b: default of this platform is another image",
            ]),
            ({}, False, ["x", "default"], ["a: the image x (id 111111111111)"],
             ["b: default of this platform is another image"]),
            ({"x": "1" * 64, "default": "2" * 64}, True, ["x", "default"], [], []),
        ):
            found = with_images(
                experiment, manifest, own, [own["default"]] if "default" in own else [],
                exact=exact,
            )
            self.assertEqual(
                ([role.image for role in found[0].roles], found[1], found[2]),
                (images, missing, notes), own,
            )


class FetchingTests(SynchronousTestCase):
    """Images of an archive that the user lacks; the platform is made up."""

    def setUp(self) -> None:
        self.images = {"ann/x:latest": "3" * 64}
        self.registry = {"hub:bob/x": "4" * 64, "reg:bob/x": "1" * 64, "reg:bob/xx": "1" * 64}
        self.calls: list[str] = []
        self.told: list[str] = []
        self.stopped_by, self.stopped = "", KeyboardInterrupt()
        for module in (fetching, holding):
            self.patch(module, "LINK", self)
        self.patch(fetching, "username", lambda: "ann")
        self.patch(fetching, "stored", lambda labels: {})

    def call(self, command: str, **named: Any) -> None:
        """Clone or remove."""
        self.calls.append(f"{command} {named.get('link', named.get('image'))}")
        if command == "cs.images.rename":
            self.images[f"ann/{named['new_name']}:latest"] = \
                self.images.pop(f"ann/{named['image']}:latest")
            return
        if command == "cs.images.remove":
            del self.images[f"ann/{named['image']}:latest"]
            return
        link = named["link"]
        if link not in self.registry:
            raise Refused("there is no such image", "NOT_FOUND")
        self.images[f"ann/{named['name']}:latest"] = self.registry[link]
        if link == self.stopped_by:
            raise self.stopped

    def json(self, command: str, *words: object, **named: Any) -> list[dict[str, Any]]:
        """Answer."""
        if command == "cs.registries.list":
            return [{"label": "hub"}, {"label": "reg"}]
        if command == "cs.images.search":
            return [
                {"name": link.rpartition("/")[2], "clonable_link": link, "link": link}
                for link in ("gone:bob/x", *self.registry) if named["keyword"] in link
            ]
        return [
            {"fullname": name, "id": self.images[name], "layers": []}
            for name in named["images"] if name in self.images
        ]

    def fetch(
        self, wanted: dict[str, str], others: dict[str, str], kept: Sequence[str] = ()
    ) -> dict[str, str]:
        """Fetch images."""
        return fetching.fetch(wanted, others, ["x"], kept, self.load, self.told.append)

    def load(self, images: Mapping[str, str]) -> None:
        """Take images out of the archive."""
        self.calls.append(f"load {', '.join(images)}")
        self.images.update({f"ann/{name}:latest": found for name, found in images.items()})

    def refuse(self, images: Mapping[str, str]) -> None:
        """Load some, and no others."""
        self.images["ann/fetch-666666666666:latest"] = "6" * 64
        raise Failure("the server has not the room")

    def test_archive(self) -> None:
        """What is neither here nor in a registry is in the archive, perhaps."""
        self.assertEqual(self.fetch({"7" * 64: "z"}, {}, ["8" * 64]), {})
        self.assertEqual(self.fetch({"7" * 64: "z"}, {}, ["7" * 64]), {"z": "7" * 64})
        self.assertEqual(self.calls, ["load fetch-777777777777",
                                      "cs.images.rename fetch-777777777777"])
        self.assertEqual(self.told, ["z: out of the archive"])
        self.calls.clear()
        self.images["ann/fetch-222222222222:latest"] = "3" * 64  # one that was killed
        wanted = {"1" * 64: "a", "2" * 64: "b", "5" * 64: "c"}
        del self.registry["reg:bob/x"]
        self.registry["hub:bob/a"] = "1" * 64
        self.assertEqual(
            self.fetch(wanted, {}, list(wanted)), {"a": "1" * 64, "b": "2" * 64, "c": "5" * 64}
        )
        self.assertEqual([call for call in self.calls if call.startswith("load")],
                         ["load fetch-222222222222, fetch-555555555555"])
        self.assertFalse([name for name in self.images if "fetch-" in name])
        before = dict(self.images)
        self.patch(self, "load", self.refuse)
        self.assertRaises(Failure, self.fetch, {"6" * 64: "d"}, {}, ["6" * 64])
        self.assertEqual(self.images, before)

    def test_by_identity(self) -> None:
        """First those of others here, then of registries; what is another image does not stay."""
        found = self.fetch({"1" * 64: "x"}, {})
        self.assertEqual(found, {"x-11111111": "1" * 64})
        self.assertEqual(self.calls, [
            "cs.images.clone gone:bob/x", "cs.images.clone hub:bob/x",
            "cs.images.remove fetch-111111111111", "cs.images.clone reg:bob/x",
            "cs.images.rename fetch-111111111111",
        ])
        self.assertEqual(self.told, ["x-11111111: cloned from reg:bob/x"])
        self.registry["walt:eve/y"] = "5" * 64
        self.assertEqual(
            self.fetch({"5" * 64: "y"}, {"5" * 64: "eve/y:latest"}), {"y": "5" * 64}
        )
        self.assertEqual(self.fetch({"6" * 64: "z"}, {}), {})
        self.assertEqual(self.images["ann/x:latest"], "3" * 64)

    def test_stopped(self) -> None:
        """No image stays under a name that tells nothing of it, whatever stops it."""
        before = dict(self.images)
        for stopped in (KeyboardInterrupt(), Failure("the connection was lost")):
            for link in ("hub:bob/x", "reg:bob/x"):
                self.stopped_by, self.stopped = link, stopped
                self.assertRaises(type(stopped), self.fetch, {"1" * 64: "x"}, {})
                self.assertEqual(self.images, before)
        self.stopped_by = ""
        for left in ("4" * 64, "1" * 64):  # by one that was killed
            self.images = {**before, "ann/fetch-111111111111:latest": left}
            self.assertEqual(self.fetch({"1" * 64: "x"}, {}), {"x-11111111": "1" * 64})
            self.assertEqual(self.images, {**before, "ann/x-11111111:latest": "1" * 64})

    def test_fetched_last(self) -> None:
        """What is refused for another reason fetches nothing."""
        place = Path(self.mktemp())
        text = "name: x\nroles:\n  a: {image: x}\nmeasure:\n  - a: id\n"
        folder = Folder(place)
        folder.begin({
            "format": 1, "name": "x", "licence": "", "run": "0" * 12, "began": 1e9, "ended": 1e9,
            "state": "done", "walt": {}, "roles": {"a": ["n1"]}, "nodes": {"n1": {
                "mac": "", "ip": "", "model": "", "virtual": True, "image": "bob/x:latest",
                "kernel": "", "cpu": "", "processors": "", "settings": {},
            }}, "images": {"bob/x:latest": "1" * 64}, "booted": {}, "commit": None, "spans": [],
        }, text, {})
        self.patch(links, "LINK", self)
        tables = {"own": [{"name": "x", "fullname": "ann/x:latest", "id": "3" * 64}],
                  "others": [], "default": []}
        json_ = self.json
        self.patch(self, "json", lambda name, *words, **named: (
            tables if name == "cs.images.show" else json_(name, *words, **named)
        ))
        for found, told in (
            (Cast({"a": []}, missing=["a: 1 more node"]), "missing: a: 1 more node"),
            (Cast({"a": ["n1"]}, {"n1": "free"}, reserved=["n1"]), "reserved by a program"),
            (Cast({"a": ["n1"]}), "exists"),
        ):
            coming: list[str] = []

            def cast(
                experiment: object, given: object, names: Iterable[str], found: Cast = found,
                coming: list[str] = coming,
            ) -> Cast:
                coming += names
                return found

            self.patch(casting, "cast", cast)
            failure = self.assertRaises(
                Failure, command.replay, str(place), str(place), None, False, False
            )
            self.assertIn(told, str(failure))
            self.assertEqual((self.calls, coming), ([], ["x-11111111"]))

    def test_lacking(self) -> None:
        """Of roles, by the ids of what their nodes booted."""
        manifest = {
            "roles": {"a": ["n1"], "b": ["n2", "n3"]}, "images": {"ann/x:latest": "1" * 64},
            "nodes": {"n1": {"image": "ann/x:latest"}, "n2": {"image": "ann/y:latest"}},
        }
        self.assertEqual(fetching.lacking(manifest, ["a", "b"], []), {"1" * 64: "x"})
        self.assertEqual(fetching.lacking(manifest, ["a", "b"], ["1" * 64]), {})


class ArchiveTests(SynchronousTestCase):
    def folder(self, name: str, **changes: Any) -> Path:
        """Write the archive of a run."""
        place = Path(self.mktemp()) / name
        node = {
            "mac": "02:00:00:00:00:01", "ip": "192.168.1.2", "model": "pc-x86-64",
            "virtual": True, "image": "ann/x:latest", "kernel": "Linux 6", "cpu": "A",
            "processors": "2", "settings": {"ram": "512M"}, **changes.get("node", {}),
        }
        manifest = {
            "format": 1, "name": "small", "licence": "", "run": "0" * 12, "began": 1e9,
            "ended": None, "state": changes.get("state", "done"),
            "walt": {"client": "11", "server": "11"}, "definition": "", "commit": None,
            "roles": {"a": ["n1"]}, "nodes": {"n1": node},
            "images": {"ann/x:latest": changes.get("image", "1" * 64)}, "booted": {},
            "spans": [[1e9, None]], "layers": {"ann/x:latest": changes.get("layers", ["1", "2"])},
        }
        folder = Folder(place)
        text = SMALL.replace("echo 1", changes.get("command", "echo 1"))
        folder.begin(manifest, text, changes.get("scripts", {}))
        manifest["roles"] |= changes.get("roles", {})
        manifest["nodes"] |= {
            name: {**node, "mac": f"02:00:00:00:00:0{name[-1]}"}
            for names in changes.get("roles", {}).values() for name in names
        }
        folder.write_manifest(manifest)
        write_json(place / "topology.json", {"ways": changes.get("ways", WAYS)})
        write_json(place / "clocks.json", {"nodes": {"n1": changes.get("clock", CLOCK)}})
        for number in range(1, 5):
            if number not in changes.get("without", ()):
                folder.write_point({
                    "number": number, "repetition": 1, "values": {"SIZE": str(number)},
                    "tries": 1, "outcome": "done", "reason": "", "began": 1e9, "seconds": 1.0,
                    "commands": [{
                        "step": 0, "role": "a", "node": "n1", "outcome": "ended",
                        "status": changes.get("status", 0), "background": False, "seconds": 1.0,
                        "command": "echo",
                    }],
                    "results": {"value": [changes.get("value", 100.0) + number]},
                })
        return place

    def test_of_strangers(self) -> None:
        """Whatever the files of an archive say, comparing ends, and in words."""
        place = self.folder("stranger", image="2" * 64)
        other = Archive(self.folder("other"))
        (place / "logs.parquet").write_bytes(b"x" * 20)
        write_json(place / "logs.json", index(place / "logs.parquet", {"s": 1}))
        write_json(place / "boots.json", [{"node": "n1", "outcome": "ready", "seconds": 1.0}])
        files = {
            name: json.loads((place / name).read_text()) for name in (
                "manifest.json", "logs.json", "boots.json", "clocks.json", "topology.json",
                "points/00001.json",
            )
        }
        values = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=4,
        )

        @settings(max_examples=200, deadline=None)
        @given(st.data())
        def compared(data: st.DataObject) -> None:
            name = data.draw(st.sampled_from(sorted(files)))
            text = json.loads(json.dumps(files[name]))
            at: Any = text
            while True:
                keys = list(at) if isinstance(at, dict) else range(len(at))
                key = data.draw(st.sampled_from(list(keys)))
                if not isinstance(at[key], (dict, list)) or not at[key] or \
                        data.draw(st.booleans()):
                    break
                at = at[key]
            at[key] = data.draw(values)
            (place / name).write_text(json.dumps(text))
            try:
                for _ in compare(other, Archive(place)):
                    """It is a line."""
            except Failure:
                """So is that."""
            finally:
                write_json(place / name, files[name])

        compared()
        for name, key, value in (
            ("manifest.json", "layers", []), ("manifest.json", "layers", {"ann/x:latest": 5}),
        ):
            write_json(place / name, files[name] | {key: value})
            self.assertRaises(Failure, lambda: compare(other, Archive(place)))
            write_json(place / name, files[name])
        write_json(place / "logs.json", files["logs.json"] | {"end": "zz"})
        self.assertIsNone(counts_of(Archive(place)))
        write_json(place / "logs.json", files["logs.json"])
        (place / "logs.parquet").unlink()
        self.assertIsNone(counts_of(Archive(place)))
        long = [{**WAYS["n1"][0], "name": str(number)} for number in range(65)]
        write_json(place / "topology.json", {"ways": {"n1": long}})
        self.assertRaises(Failure, lambda: compare(other, Archive(place)))

    def differences(self, **changes: Any) -> list[str]:
        """Return what differs when this was changed."""
        first, second = self.folder("first"), self.folder("second", **changes)
        return [
            f"{one.mark} {one.category}" for one in compare(Archive(first), Archive(second))
            if one.mark != "="
        ]

    def test_what_was_planted_is_found(self) -> None:
        """Each difference by its category, and nothing else."""
        for changes, expected in (
            ({}, []),
            ({"value": 105.0}, ["~ result"] * 4),
            ({"value": 150.0}, ["! result"] * 4),
            ({"image": "2" * 64, "layers": ["1", "3"]}, ["! image"]),
            ({"command": "echo 2"}, ["! command"]),
            ({"clock": [[1e9, 7.0, 0.01], [1e9 + 300, 7.0, 0.01]]}, ["! clock"]),
            ({"clock": [[1e9, 0.0, 0.01], [1e9 + 300, -5.0, 0.01]]}, ["! clock"]),
            ({"clock": [[1e9, 0.02, 0.01]]}, []), ({"clock": [[1e9, 0.9, 0.01]]}, ["~ clock"]),
            ({"clock": []}, ["? clock"]),
            ({"ways": {"n1": [{**WAYS["n1"][0], "port": "4"}]}}, ["! topology"]),
            ({"node": {"settings": {"ram": "1G"}}}, ["! settings"]),
            ({"node": {"mac": "02:00:00:00:00:09", "cpu": "B"}}, ["~ role", "~ role"]),
            ({"node": {"kernel": "Linux 7"}}, ["! role"]),
            ({"status": 7}, ["! command"] * 4),
            ({"without": (3,)}, ["! point"]),
            ({"scripts": {"go.sh": "echo"}}, ["! definition"]),
        ):
            self.assertEqual(self.differences(**changes), expected, changes)

    def test_in_words(self) -> None:
        """Where it is, what was before, and what is now."""
        first = self.folder("first")
        for changes, expected in (
            ({"image": "2" * 64, "layers": ["1", "3"]},
             "a: ann/x:latest 111111111111 -> ann/x:latest 222222222222: layer 2 of 2 differs"),
            ({"image": "2" * 64},
             "a: ann/x:latest 111111111111 -> ann/x:latest 222222222222:"
             " its configuration alone differs"),
            ({"command": "echo 2"}, "measure, step 1 of a: 'echo 1 > out' -> 'echo 2 > out'"),
            ({"clock": [[1e9, 7.0, 0.01]]}, "a: +0.000 s (± 0.010) -> +7.000 s (± 0.010)"),
            ({"ways": {"n1": []}}, "a: port 3 of sw1 -> at no switch that is known"),
            ({"without": (3,)}, "3 (SIZE=3 #1) is in one archive alone"),
        ):
            found = compare(Archive(first), Archive(self.folder("second", **changes)))
            self.assertEqual(found[0].text, expected)
        same = compare(Archive(first), Archive(first))
        self.assertEqual({line.mark for line in same}, {"="})
        self.assertIn(("point", 4), {(line.category, line.count) for line in same})

    def test_linked(self) -> None:
        """Latencies that differ are told; so is a link that one archive lacks."""
        texts = [linked(f"between: [a, b], latency: {told}") for told in ("8ms", "20ms")]
        places = [self.folder("one"), self.folder("two"), self.folder("three")]
        for place, text in zip(places, texts, strict=False):
            (place / "experiment.yaml").write_text(text)
        for second, expected in (
            (places[1], "a - b: latency 8ms -> 20ms"),
            (places[2], "the link a - b is in one archive alone"),
        ):
            found = compare(Archive(places[0]), Archive(second))
            self.assertEqual(
                [(line.category, line.text) for line in found if line.mark == "!"],
                [("topology", expected)],
            )

    def test_distances(self) -> None:
        """Of other nodes, the switches between them are compared."""
        near = {"n1": WAYS["n1"], "n2": WAYS["n1"], "n3": WAYS["n1"], "n4": WAYS["n1"]}
        far = {**near, "n4": [{"name": "sw2", "mac": "", "port": "1"}, *WAYS["n1"]]}
        first = self.folder("first", roles={"b": ["n2"]}, ways=near)
        for ways, expected in (
            (near, []), (far, ["a to b: 1 -> 2 switches between them"]),
            ({**near, "n4": []}, ["a to b: not known in one archive"]),
        ):
            second = self.folder("second", roles={"b": ["n4"]}, ways=ways)
            found = compare(Archive(first), Archive(second))
            self.assertEqual(
                [line.text for line in found if line.category == "topology" and line.mark in "!?"],
                expected,
            )

    def test_senseless(self) -> None:
        """Clocks and ways that are none are refused."""
        for name, content in (
            ("clocks.json", {"nodes": {"n1": [[1.0]]}}), ("clocks.json", {"nodes": {"n1": 1}}),
            ("clocks.json", []), ("topology.json", {"ways": {"n1": [{}]}}),
            ("topology.json", {"ways": []}),
        ):
            first, second = self.folder("first"), self.folder("second")
            write_json(second / name, content)
            self.assertRaises(Failure, compare, Archive(first), Archive(second))

    def test_sealed(self) -> None:
        """What a killed run left is sealed, and what was changed afterwards is told."""
        place = self.folder("killed", state="running", without=(4,))
        (place / "points" / ".00004.json.new").write_text("{")
        target = place.parent / "killed.zip"
        seal(place, target)
        self.assertRaises(Failure, seal, place, target)
        archive = Archive(target)
        self.assertEqual(verify(archive), [])
        self.assertEqual(sorted(archive.points()), [1, 2, 3])
        crate = archive.json("ro-crate-metadata.json")
        parts = {entry["@id"] for entry in crate["@graph"][1]["hasPart"]}
        self.assertIn("points/00001.json", parts)
        self.assertIn("state is running", archive.data("README.md").decode())
        edited = place.parent / "edited.zip"
        with zipfile.ZipFile(edited, "w") as new:
            for name in sorted(archive.names - {"points/00002.json"}):
                new.writestr(name, archive.data(name).replace(b'"n1"', b'"n2"'))
        self.assertEqual(verify(Archive(edited)), [
            *(f"{name} is not what was sealed" for name in (
                "clocks.json", "manifest.json", "points/00001.json", "points/00003.json",
                "topology.json",
            )), "points/00002.json is missing",
        ])
        with redirect_stdout(io.StringIO()) as told:
            self.assertEqual(command.show(str(target), False), 0)
        self.assertIn("value, medians:", told.getvalue())

    def test_logs(self) -> None:
        """Streams of one archive alone are told; bombs and nonsense cannot be compared."""
        first = self.folder("first")
        line = json.dumps([1e9, "n1", "mark", 'a "b" \\ é']) + "\n"
        lines = gzip.compress(line.encode() * 1000)
        for content, expected in (
            (lines, []), (gzip.compress(b'[1.0, "n1", "other", "x"]\n'), ["! log", "! log"]),
            (lines[:-20], ["? log"]), (b"nonsense", ["? log"]), (gzip.compress(b"[]\n"), ["? log"]),
            (gzip.compress(bytes(1 << 26)), ["? log"]),
        ):
            second = self.folder("second")
            (first / "logs.jsonl.gz").write_bytes(lines)
            (second / "logs.jsonl.gz").write_bytes(content)
            found = compare(Archive(first), Archive(second))
            self.assertEqual(
                [f"{one.mark} {one.category}" for one in found if one.mark != "="], expected
            )

    def test_counted_lines(self) -> None:
        """Counts are believed as long as they are those of the lines that are there."""
        first, second = self.folder("first"), self.folder("second")
        for place, stream in ((first, "mark"), (second, "other")):
            file = place / "logs.jsonl.gz"
            file.write_bytes(gzip.compress(f'[1.0, "n1", "{stream}", "x"]\n'.encode()))
            write_json(place / "logs.json", index(file, {stream: 1}))
        found = compare(Archive(first), Archive(second))
        self.assertEqual([line.text for line in found if line.mark == "!"], [
            "stream mark is in one archive alone", "stream other is in one archive alone",
        ])
        target = first.parent / "first.zip"
        seal(first, target)
        self.assertEqual(counts_of(Archive(target)), {"mark": 1})
        (second / "logs.jsonl.gz").write_bytes(gzip.compress(b'[1.0, "n1", "mark", "x"]\n'))
        self.assertEqual(
            [line.mark for line in compare(Archive(first), Archive(second)) if line.mark != "="],
            ["?"],
        )

    def test_hostile(self) -> None:
        """Names that climb, links, other formats and cut files are refused in words."""
        place = Path(self.mktemp())
        place.mkdir()
        for number, (name, content) in enumerate((
            ("../evil", b""), ("/etc/x", b""), ("a/../../b", b""), ("points/\x1b[2J", b""),
            (".hidden", b""), ("-rf", b""), ("manifest.json", b'{"format": 2}'),
            ("manifest.json", b"[" * 100_000), ("manifest.json", b"\xff"),
        )):
            file = place / f"{number}.zip"
            with zipfile.ZipFile(file, "w") as new:
                new.writestr(name, content)
            self.assertRaises(Failure, Archive, file)
        whole = place / "whole.zip"
        seal(self.folder("whole"), whole)
        data = whole.read_bytes()
        for size in range(0, len(data), 97):
            cut = place / "cut.zip"
            cut.write_bytes(data[:size])
            try:
                verify(Archive(cut))
            except Failure:
                continue
            self.fail(f"cut at {size} it passes")
        for changed in (
            {"roles": {"a": 7}}, {"nodes": {"n1": {}}}, {"images": {"x": None}}, {"began": "x"},
            {"run": "x; reboot #"}, {"spans": [[1.0]]},
            {"roles": []}, {"booted": {"a": []}}, {"began": 1e300}, {"ended": -1},
            {"began": float("nan")}, {"began": -1.0}, {"images": None},
        ):
            odd = self.folder("odd")
            manifest = json.loads((odd / "manifest.json").read_text()) | changed
            (odd / "manifest.json").write_text(json.dumps(manifest))
            self.assertRaises(Failure, Archive, odd)
        for changed in ({"results": {"value": ["x"]}}, {"results": {"value": [float("nan")]}},
                        {"results": {"value": [10**400]}}, {"commands": [1]}, {"values": None}):
            odd = self.folder("odd")
            file = odd / "points" / "00001.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | changed))
            self.assertRaises(Failure, Archive(odd).points)
        linked = self.folder("linked")
        (linked / "files").mkdir()
        (linked / "files" / "passwd").symlink_to("/etc/passwd")
        self.assertNotIn("files/passwd", Archive(linked).names)
        self.assertRaises(Failure, Archive, place / "nothing")


class DetachedTests(SynchronousTestCase):
    """Commands on a node, which is this machine; connections are those of the test."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp()).absolute()
        self.patch(detached, "PLACE", str(self.place))
        self.broken: list[str] = []  # what becomes of the next connections

    def run_here(self, node: str, command: str, limit: float) -> Result:
        """Run a command as the server would, unless this connection is broken."""
        kind = self.broken.pop(0) if self.broken else ""
        if kind == "before":
            raise Failure("the connection was lost")
        if kind == "away":
            raise NotBegun("the node cannot be reached")
        with subprocess.Popen(
            ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as shell:
            if kind == "within":
                time.sleep(0.3)
                shell.kill()
                raise Failure("the connection was lost")
            try:
                out, err = shell.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                shell.kill()
                raise TimeoutException from None
        if kind == "ssh":
            return Result(255, "", "ssh: no route to host")
        return Result(shell.returncode, out.decode(), err.decode())

    def perform(self, identity: str, command: str, limit: float = 30.0, **how: Any) -> Any:
        """Run a command with two variables."""
        work = self.place / "work"
        before = detached.prelude({"A": "it's\n$HOME", "B": "2"}, str(work))
        shells = LocalShells(self.run_here)
        return detached.perform(shells, "n1", identity, before, command, limit, again=0.0, **how)

    def test_outcomes(self) -> None:
        """Statuses, whole outputs, variables, interpreters; what takes too long is ended."""
        found = self.perform("one", 'printf %s "$A$B"; echo wrong >&2; exit 7')
        self.assertEqual(
            (found.outcome, found.status, found.output, found.error),
            ("ended", 7, "it's\n$HOME2", "wrong\n"),
        )
        found = self.perform("own", "echo $$; exec sh -c 'kill -9 $$'")
        self.assertEqual((found.outcome, found.status), ("ended", 137))
        for identity, text, status, output in (
            ("strict", "set -e; false; echo no", 1, ""),
            ("trap", "trap 'echo bye' EXIT; exit 4", 4, "bye\n"),
            ("all", "trap 'kill 0' EXIT; echo here", 143, "here\n"),
            ("self", "kill -9 ${$}", 137, ""), ("to", "exec > elsewhere; echo x", 0, ""),
            ("crlf", "#!/bin/sh\necho one\nexit 5", 5, "one\n"),
            ("back", "sleep 0.1 & wait; echo $?", 0, "0\n"),
        ):
            found = self.perform(identity, text)
            self.assertEqual(
                (found.outcome, found.status, found.output), ("ended", status, output), text
            )
        found = self.perform("if", "if")
        self.assertEqual((found.outcome, found.status), ("ended", 2))
        found = self.perform("two", "#!/usr/bin/env python3\nimport os; print(os.getcwd())")
        self.assertEqual(found.output, f"{self.place}/work\n")
        found = self.perform("three", "head -c 20000000 /dev/zero | tr '\\0' x; exit 255")
        self.assertEqual((found.status, len(found.output)), (255, 20_000_000))
        found = self.perform("four", "echo begun; sleep 600 & sleep 600", 1.0)
        self.assertEqual((found.outcome, found.output), ("timeout", "begun\n"))

    def test_once(self) -> None:
        """Whatever becomes of connections, a command runs once; or nobody knows how it ended."""
        ran = self.place / "work" / "ran"
        for identity, broken in (
            ("within", ["within"]), ("ssh", ["ssh", "before", "ssh"]), ("twice", []),
        ):
            self.broken = broken
            found = self.perform(identity, f"echo {identity} >> ran; sleep 0.5; echo done")
            self.assertEqual((found.outcome, found.output), ("ended", "done\n"))
        found = self.perform("twice", "echo twice >> ran")
        self.assertEqual((found.outcome, found.output), ("ended", "done\n"))
        self.assertEqual(ran.read_text(), "within\nssh\ntwice\n")
        self.assertEqual(self.perform("other", "echo x >> ran", follow=True).outcome, "unknown")
        self.broken = ["before"]  # it may have begun, and the node has booted since
        self.assertEqual(self.perform("lost", "echo x >> ran").outcome, "unknown")
        self.assertEqual(ran.read_text(), "within\nssh\ntwice\n")
        self.broken = ["away", "away"]  # nothing was sent: it is begun when the node is there
        self.assertEqual(self.perform("late", "echo late >> ran").outcome, "ended")
        self.assertEqual(ran.read_text(), "within\nssh\ntwice\nlate\n")
        self.broken = ["before"] * 3
        self.assertEqual(self.perform("away", "true", patience=0.0).outcome, "unknown")
