"""Runs of experiments whose nodes are this machine, and whose platform is made up."""

from __future__ import annotations

import errno
import io
import json
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pyarrow.parquet import read_table
from twisted.trial.unittest import SynchronousTestCase

from tests.client.local_shells import LocalShells
from tests.patience import patient
from walt.client import experiment
from walt.client.answers import Answer
from walt.client.commands import experiment as command
from walt.client.errors import Failure, Refused
from walt.client.exceptions import NodeNotOwnedException, TimeoutException
from walt.client.experiment import (
    collecting,
    detached,
    duties,
    finding,
    holding,
    images,
    origin,
    parallel,
    preparing,
    program,
    reporting,
    running,
    sealing,
    stepping,
    timing,
)
from walt.client.experiment.archive import Archive, Folder
from walt.client.experiment.casting import Cast
from walt.client.experiment.comparing import compare, experiment_of
from walt.client.experiment.document import Errors
from walt.client.experiment.log_counts import counts_of
from walt.client.experiment.model import network_name
from walt.client.experiment.ptp import question
from walt.client.experiment.reading import parsed
from walt.client.experiment.running import Runner, manifest_of
from walt.client.experiment.sealing import seal, verify
from walt.client.experiment.showing import reasons, table
from walt.client.scripting import link as links
from walt.client.scripting.running import Result, TooMuch
from walt.common.records import block_of
from walt.server.domain.nodes.experiments import Report

SMALL = """\
name: small
roles:
  a: {}
measure:
  - a: echo 1 > out
    save: out
results:
  v: {file: a/out, pattern: "([0-9.]+)"}
"""
BRANCHES = [
    {"name": "sw2", "mac": "02:00:00:00:01:02", "kind": "switch", "above": "sw1", "port": "8"},
    {"name": "n-a", "mac": "02:00:00:00:00:01", "kind": "node", "above": "sw2", "port": "3"},
    {"name": "bobs", "mac": "02:00:00:00:00:09", "kind": "node", "above": "sw2", "port": "4"},
]


PROGRAM = """\
from walt.client.experiment import Run
def made(*words, **how):
    return Run(*words, **how)
"""
HELD = SMALL.replace("a: {}", "a: {image: x, settings: {ram: 1G}}")


class Programs:
    """What `node.start` would start, on this machine."""

    def __init__(self, node: str, text: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.output = self.error = ""
        self._printed = b""

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ready(self, text: str, timeout: float) -> None:
        """Wait until it has printed it."""
        assert self._process.stdout is not None
        while text.encode() not in self._printed:
            readable, _, _ = select.select([self._process.stdout], [], [], patient(20))
            data = os.read(self._process.stdout.fileno(), 1 << 16) if readable else b""
            if not data:
                raise TimeoutException
            self._printed += data

    def stop(self) -> None:
        """End it with all that it started."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
        out, err = self._process.communicate(timeout=60)
        self.output, self.error = (self._printed + out).decode(), err.decode()

    def wait(self, timeout: float) -> Result:
        """Return how it ended."""
        return Result(self._process.returncode, self.output, self.error)


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()
        self.deeds: list[str] = []
        self.lost = ""
        self.others: dict[str, str] = {}  # codes of errors by nodes that cannot be reserved
        self.images = {"ann/x:latest": "1" * 64, "waltplatform/pc-default:latest": "9" * 64}
        self.booting = "ann/x:latest"
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.told: list[str] = []
        self.lines: list[tuple[float, str, str, str]] = []
        test = self

        class Nodes:
            def __init__(self, nodes: object) -> None:
                """All of them."""

            def boot(self, image: str, force: bool = False) -> bool:
                test.deeds.append(f"boot{' force' if force else ''}")
                test.booting = f"ann/{image}:latest"
                test.assertIn(test.booting, test.images)
                return True

            def wait(self, timeout: float) -> None:
                """They are booted."""

        class Reserved:
            def __init__(self, model: str, count: int, nodes: str, *words: object) -> None:
                test.deeds.append("reserve")
                for name, code in test.others.items():
                    if name in nodes.split(","):
                        raise Refused(f"{name} is reserved by bob", code)

            @property
            def lost(self) -> str:
                return test.lost

            def ask(self) -> None:
                """It is known at once."""

            def __enter__(self) -> None:
                """The nodes are ours."""

            def __exit__(self, *exc: object) -> None:
                test.deeds.append("free")

        class Link:
            server_version = "11"

            def call(self, command: str, **named: Any) -> Answer:
                test.calls.append((command, named))
                if command == "cs.images.duplicate":
                    test.images[f"ann/{named['new_name']}:latest"] = \
                        test.images[f"ann/{named['image']}:latest"]
                elif command == "cs.images.clone":
                    test.images[f"ann/{named['name']}:latest"] = "9" * 64
                elif command == "cs.images.remove":
                    del test.images[f"ann/{named['image']}:latest"]
                elif command == "cs.nodes.set_image":
                    test.booting = f"ann/{named['image']}:latest"
                if command == "cs.server.time":
                    return Answer({b"time": repr(time.time() + 5.0).encode()})
                return Answer({b"root": b"sw1", b"branches": json.dumps(BRANCHES).encode()})

            def json(self, command: str, *words: object, **named: Any) -> list[dict[str, Any]]:
                if command == "cs.devices.config":
                    return [{"settings": {
                        "ram": "512M", "netconsole": False, "networks": "walt-net",
                    }}]
                test.assertEqual(command, "cs.images.layers")
                return [
                    {"fullname": name, "id": test.images[name], "layers": ["2" * 64]}
                    for name in named["images"] if name in test.images
                ]

            def close(self) -> None:
                """There is no connection."""

        self.patch(running, "Channels", lambda: LocalShells(self.run_here))
        for module in (running, detached, stepping):
            self.patch(module, "PLACE", str(self.place / "node"))
        self.patch(parallel, "LINK", Link())
        self.patch(stepping, "perform", partial(detached.perform, again=0.01))
        self.patch(collecting, "LINK", Link())
        self.patch(holding, "LINK", Link())
        self.patch(timing, "LINK", Link())
        self.patch(holding, "username", lambda: "ann")
        self.patch(holding, "stored", lambda labels: {})
        for module in (running, duties):
            self.patch(module, "Reservation", Reserved)
        self.patch(preparing, "LINK", Link())
        self.reports: list[dict[str, Any]] = []

        class Told:
            def call(self, command: str, **named: Any) -> None:
                test.assertEqual(command, "cs.experiments.report")
                test.reports.append(named)

            def close(self) -> None:
                """There is no connection."""

        self.patch(reporting, "LINK", Told())
        for module in (running, preparing):
            self.patch(module, "NodeSet", Nodes)
        for module in (running, preparing, duties):
            self.patch(module, "find", self.find)
        self.patch(stepping, "Program", Programs)
        self.patch(collecting, "boots_of", lambda names, last: self.find(names)[:0])
        self.patch(collecting, "get_logs", lambda *words: SimpleNamespace(
            _left=lambda: [block_of(self.lines)]
        ))

    def run_here(self, node: str, text: str, limit: float) -> Result:
        """Run a command of a node."""
        try:
            done = subprocess.run(
                ["sh", "-c", text], capture_output=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise TimeoutException from None
        return Result(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()
        )

    def find(self, names: str) -> list[Any]:
        """Return nodes."""
        class Settings:
            _values = staticmethod(lambda: {"networks": "x"})

        for name in names.split(","):
            if self.others.get(name) == "NOT_FOUND":
                raise Refused(f"there is no node {name}", "NOT_FOUND")
        return [
            SimpleNamespace(
                name=name, mac="02:00:00:00:00:01", ip="10.0.0.1", model="pc", virtual=True,
                image=SimpleNamespace(fullname=self.booting), config=Settings, booted=True,
                _record={"image": self.booting},
            ) for name in names.split(",")
        ]

    # -- runs --------------------------------------------------------------------

    def runner(
        self, text: str = SMALL, scripts: dict[str, str] | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> tuple[Runner, Folder]:
        """Return a run that has begun to be one."""
        errors = Errors()
        experiment = parsed(text, errors)
        self.assertEqual(errors, [])
        assert experiment is not None
        cast = Cast({role.name: [f"n-{role.name}"] for role in experiment.roles})
        manifest = manifest_of(experiment, cast, text) | {"commit": None}
        folder = Folder(self.place / f"run{len(list(self.place.iterdir()))}")
        folder.begin(manifest, text, scripts or {})
        return Runner(
            experiment, scripts or {}, folder, manifest, tell or self.told.append
        ), folder

    def ran(self, text: str = SMALL, scripts: dict[str, str] | None = None) -> Folder:
        """Run an experiment."""
        runner, folder = self.runner(text, scripts)
        runner.run({}, force=False)
        return folder

    def again(self, folder: Folder, *, failed: bool = False) -> bool:
        """Go on with a run; with what `failed`, too."""
        folder.resume()
        archive = Archive(folder.path)
        return Runner(
            experiment_of(archive), archive.scripts(), folder, archive.manifest, self.told.append
        ).run(archive.points(), force=False, again=failed)

    def point(self, folder: Folder, number: int = 1) -> dict[str, Any]:
        """Return a point."""
        found: dict[str, Any] = Archive(folder.path).points()[number]
        return found

    def test_whole(self) -> None:
        """Reserved, booted, measured, freed; nothing is left on the node."""
        folder = self.ran()
        self.assertEqual(self.deeds, ["reserve", "boot", "free"])
        self.assertEqual(self.point(folder)["results"], {"v": [1.0]})
        self.assertEqual(list((self.place / "node").iterdir()), [])
        archive = Archive(folder.path)
        self.assertEqual(archive.manifest["state"], "done")
        self.assertEqual(
            archive.manifest["images"], {"waltplatform/pc-default:latest": "9" * 64}
        )
        self.assertEqual(archive.manifest["layers"].keys(), archive.manifest["images"].keys())
        self.assertEqual(archive.json("topology.json")["ways"], {"n-a": [
            {"name": "sw2", "mac": "02:00:00:00:01:02", "port": "3"},
            {"name": "sw1", "mac": "", "port": "8"},
        ]})

    def test_held(self) -> None:
        """Image and settings are those of the run for its time, and what they were afterwards."""
        text = SMALL.replace("a: {}", "a: {image: x, settings: {ram: 1G, netconsole: 'true'}}")
        folder = self.ran(text)
        manifest = Archive(folder.path).manifest
        self.assertEqual(
            (manifest["images"], manifest["held"], manifest["before"]),
            ({"ann/x:latest": "1" * 64}, {}, {}),
        )
        self.assertEqual((self.booting, len(self.images)), ("ann/x:latest", 2))
        settings = [named["settings"] for call, named in self.calls
                    if call == "cs.devices.set_config"]
        self.assertEqual(settings, [
            ["ram=1G", "netconsole=true"], ["ram=512M", "netconsole=false"],
        ])

    def test_kept_images(self) -> None:
        """They are kept while the run holds them; where that fails, it is told."""
        def keep(folder: Path, manifest: dict[str, Any]) -> None:
            held.append(dict(manifest["held"]))
            if len(held) > 1:
                raise Failure("the image x of this run is not on the platform any more")

        held: list[dict[str, str]] = []
        self.patch(duties, "save_into", keep)
        sizes = {"1" * 64: 2000.0, "9" * 64: 1000.0}
        asked: list[str] = []

        def show(*words: Any, **named: Any) -> dict[str, Any]:
            asked.append(words[0])
            rows = [{"id": one, "size": size} for one, size in sizes.items()]
            return {"own": rows, "others": [], "default": rows, "hidden": 0, "total": 2}

        self.patch(images, "LINK", SimpleNamespace(json=show))
        for number in (1, 2):
            runner, folder = self.runner(HELD)
            self.manifest(folder)  # it is there
            runner._manifest["with_images"] = True
            self.assertTrue(runner.run({}, force=False))
            self.assertEqual(len(held), number)
            self.assertTrue(held[-1])
            self.holds_nothing(folder)
        self.assertIn("images were not kept: the image x", "\n".join(self.told))
        self.ran()
        self.assertEqual((len(held), asked), (2, ["cs.images.show"] * 4))

    def test_images_that_cannot_be_kept(self) -> None:
        """That is told before the first point; what the run took is given back."""
        sizes: dict[str, float] = {}
        self.patch(images, "LINK", SimpleNamespace(json=lambda *words, **named: {
            "own": [{"id": one, "size": size} for one, size in sizes.items()], "others": [],
            "default": [], "hidden": 0, "total": 1,
        }))
        saved: list[Path] = []
        self.patch(duties, "save_into", lambda folder, manifest: saved.append(folder))
        for known, size, most, told in (
            ("1", 1e9, 0, "this run uses 1 images, and an archive keeps up to 0"),
            ("2", 1e9, 64, "the image x of this run is not on the platform any more"),
            ("1", 1e16, 64, "images take up to 10000000.0 GB"),
        ):
            sizes.clear()
            sizes[known * 64] = size
            self.patch(images, "MOST_IMAGES", most)
            runner, folder = self.runner(HELD)
            runner._manifest["with_images"] = True
            failure = self.assertRaises(Failure, runner.run, {}, force=False)
            self.assertIn(told, str(failure))
            self.assertEqual((Archive(folder.path).points(), saved), ({}, []))
            self.holds_nothing(folder)

    def test_reports(self) -> None:
        """The server hears how far it is, and nothing of what is run."""
        self.ran(SMALL + "repetitions: 2\n")
        last = self.reports[-1]
        self.assertEqual(
            (last["state"], last["point"], last["points"], last["failed"]),
            ("done", last["points"], last["points"], 0),
        )
        self.assertEqual(last.keys(), {
            "run", "name", "nodes", "began", "points", "state", "point", "failed", "failed_point",
            "time_limit",
        })
        self.assertNotIn("echo", str(self.reports))

    def test_reports_of_points_again(self) -> None:
        """A point that is measured again counts once, as it ended last; a refusal is told once."""
        told: list[dict[str, Any]] = []
        _, folder = self.runner(SMALL + "repetitions: 2\n")
        reports = reporting.Reports(Archive(folder.path).manifest, 2, ["n-a"], self.told.append)

        def call(command: str, **named: Any) -> None:
            named.pop("time_limit")
            Report(**named)
            told.append(named)
            raise Refused("500 experiments run already", "LIMIT_EXCEEDED")

        self.patch(reporting, "LINK", SimpleNamespace(call=call, close=lambda: None))
        counted = []
        reports.begin({1: "interrupted", 2: "running"})
        reports.end()
        for number, outcome in ((1, "failed"), (2, "unknown"), (1, "failed"), (1, "done"),
                                (2, "done")):
            reports.note(number, outcome)
            reports.begin({})
            reports.end()
            counted.append((told[-1]["point"], told[-1]["failed"], told[-1]["failed_point"]))
        self.assertEqual((told[0]["point"], told[0]["failed"]), (0, 0))
        self.assertEqual(counted, [(1, 1, 1), (2, 2, 2), (1, 2, 1), (1, 1, 2), (2, 0, 0)])
        self.assertEqual(
            self.told, ["others do not see that this run goes on: 500 experiments run already"]
        )

    def test_moments_of_no_calendar(self) -> None:
        """A server that tells a moment that no calendar has ends no table."""
        row = {
            "user": "ann", "name": "x", "state": "running", "online": True, "nodes": ["n1"],
            "point": 0, "points": 1, "failed": 0, "failed_point": 0,
        }
        rows = [row | {"started": started} for started in (-1e300, 1e300, 1e15, 1.7e9)]
        self.patch(links, "LINK", SimpleNamespace(json=lambda *words: rows))
        with redirect_stdout(io.StringIO()) as out:
            self.assertEqual(command.show(None, False), 0)
        self.assertIn("-1e+300", out.getvalue())
        self.assertIn("2023-11-1", out.getvalue())

    def test_power_failure(self) -> None:
        """A point that the power cut off was never begun: a run is shown, gone on with, sealed."""
        for number, cut in enumerate((0, 1, 40)):
            folder = self.ran(SMALL + "repetitions: 2\n")
            file = folder.path / "points" / "00002.json"
            whole = file.read_bytes()
            for content in (whole[:cut], whole[:cut] + bytes(len(whole) - cut)):
                file.write_bytes(content)
                archive = Archive(folder.path)
                self.assertEqual(list(archive.points()), [1])
                self.assertEqual(archive.cut_points(), ["points/00002.json"])
                self.assertIn("points/00002.json was cut off", reasons(archive)[0])
            sealed = self.place / f"cut{number}.zip"
            seal(folder.path, sealed)
            self.assertEqual((verify(Archive(sealed)), list(Archive(sealed).points())), ([], [1]))
            self.assertIn("was cut off", Archive(sealed).data("README.md").decode())
            with redirect_stdout(io.StringIO()) as out:
                self.assertEqual(command.show(str(folder.path), False), 0)
            self.assertIn("points/00002.json was cut off", out.getvalue())
            manifest = Archive(folder.path).manifest | {"state": "interrupted", "owes": ["release"]}
            (folder.path / "manifest.json").write_text(json.dumps(manifest))
            shutil.copytree(folder.path, f"{folder.path}-b")
            with redirect_stdout(io.StringIO()) as out:
                self.assertEqual(command.release(f"{folder.path}-b"), 0)
                self.assertEqual(command.resume(str(folder.path), False), 0)
            self.assertIn("points/00002.json was cut off", out.getvalue())
            self.assertEqual(self.point(folder, 2)["outcome"], "done")

    def test_shown_for_programs(self) -> None:
        """What is wrong with an archive is told beside JSON, too; so are images and lost points."""
        folder = self.ran()
        (folder.path / "images").mkdir()
        (folder.path / "images" / "oci.tar").write_bytes(b"x" * 2000)
        (folder.path / "points" / "00002.json").touch()
        target = self.place / "odd.zip"
        seal(folder.path, target)
        for archive in (folder.path, target):
            out, err = io.StringIO(), io.StringIO()
            err.isatty = lambda: archive == target  # type: ignore[method-assign] # noqa: B023
            with redirect_stdout(out), redirect_stderr(err):
                self.assertEqual(command.show(str(archive), True), 1)
            self.assertIn("images/oci.tar", err.getvalue())
            self.assertEqual("Reading the images of" in err.getvalue(), archive == target)
            shown = json.loads(out.getvalue())
            self.assertEqual(
                (shown["images_kept"], shown["points_cut"], len(shown["points"])),
                ([], ["points/00002.json"] if archive == folder.path else [], 1),
            )

    def test_links(self) -> None:
        """Roles get networks for the time of the run; the archive tells links, not their names."""
        text = SMALL.replace("measure:", """\
  b: {}
links:
  - {between: [a, b], latency: 8ms}
measure:""")
        folder = self.ran(text)
        manifest = Archive(folder.path).manifest
        name = network_name(manifest["run"], 0)
        words = [named["settings"] for call, named in self.calls
                 if call == "cs.devices.set_config"]
        self.assertEqual(words, [[f"networks=walt-net,{name}[lat=8ms]"]] * 2 + [
            ["networks=walt-net"]] * 2)
        self.assertNotIn("networks", manifest["nodes"]["n-a"]["settings"])

    def test_image_that_others_change(self) -> None:
        """One that is replaced or removed meanwhile is whole for the run, and told afterwards."""
        for change, told in (("2" * 64, "x is another image now"), (None, "x was removed")):
            self.images = {"ann/x:latest": "1" * 64}
            self.told.clear()

            def tell(line: str, change: str | None = change) -> None:
                self.told.append(line)
                if line.startswith("point 1"):
                    del self.images["ann/x:latest"]
                    if change is not None:
                        self.images["ann/x:latest"] = change

            runner, folder = self.runner(SMALL.replace("a: {}", "a: {image: x}"), tell=tell)
            self.assertTrue(runner.run({}, force=False))
            self.assertTrue(any(told in line for line in self.told), self.told)
            self.assertEqual(self.images[self.booting], "1" * 64)
            self.assertEqual(Archive(folder.path).manifest["images"], {"ann/x:latest": "1" * 64})

    def test_held_by_a_stranger(self) -> None:
        """An archive that was edited takes no image, and sets no node, that are none of its run."""
        for changed in (
            {"held": {"ann/x:latest": "ann/y:latest"}}, {"held": []}, {"before": {"n-b": {}}},
            {"before": {"n-a": {"ram; x": "1"}}}, {"before": {"n-a": ["ram"]}},
        ):
            _, folder = self.runner()
            folder.write_manifest(Archive(folder.path).manifest | changed)
            self.assertRaises(Failure, self.again, folder)

    def test_resumed(self) -> None:
        """What was interrupted goes on with its setup, and is torn down once, at the end."""
        up = self.place / "up"
        text = SMALL.replace("measure:", f"""\
variables: {{A: [1, 2]}}
setup:
  - a: touch {up}
teardown:
  - a: rm {up}
measure:
  - a: test -e {up}""")

        def tell(line: str) -> None:
            if line.startswith("point 1"):
                raise KeyboardInterrupt

        runner, folder = self.runner(text, tell=tell)
        self.assertRaises(KeyboardInterrupt, runner.run, {}, force=False)
        self.assertEqual((Archive(folder.path).manifest["state"], up.exists()),
                         ("interrupted", True))
        self.assertTrue(self.again(folder))
        self.assertFalse(up.exists())
        self.assertEqual(self.deeds.count("boot"), 1)
        self.deeds.clear()
        self.assertTrue(self.again(folder))
        self.assertEqual(self.deeds, [])

    def test_points_that_failed(self) -> None:
        """They are measured once more when that is asked for, and no other point is."""
        good, ran = self.place / "good", self.place / "ran"
        text = SMALL.replace("measure:", f"""\
variables: {{A: [1, 2]}}
limits: {{retries: 1}}
measure:
  - a: echo $A >> {ran}; test $A = 1 || test -e {good}""")
        folder = self.ran(text)
        self.assertEqual(ran.read_text().split(), ["1", "2", "2"])
        self.assertFalse(self.again(folder))
        self.assertFalse(self.again(folder, failed=True))
        self.assertEqual(ran.read_text().split()[3:], ["2", "2"])
        good.touch()
        self.assertTrue(self.again(folder, failed=True))
        self.assertEqual(ran.read_text().split()[5:], ["2"])
        points = Archive(folder.path).points()
        self.assertEqual(
            [(one["outcome"], one["tries"]) for one in points.values()], [("done", 1), ("done", 5)]
        )
        self.assertEqual(self.manifest(folder)["owes"], [])
        self.deeds.clear()
        self.assertTrue(self.again(folder, failed=True))
        self.assertEqual(self.deeds, [])

    def test_trouble_of_a_point(self) -> None:
        """It fails this point alone, with a reason; the archive stays readable."""
        for text, reason in (
            (SMALL.replace("echo 1 > out", "echo"), "out was not saved"),
            (SMALL.replace("([0-9.]+)", "1|([0-9]+)x"), "no such number"),
            (SMALL.replace("echo 1", "echo nan").replace("([0-9.]+)", "(.*)"), "no number to"),
            (SMALL.replace("echo 1", "echo 1e999").replace("([0-9.]+)", "(.*)"), "no number"),
            (SMALL.replace("echo 1 > out", "mkdir out"), "out is no file"),
            (SMALL.replace("echo 1 > out", "exit 3"), "status 3"),
            (SMALL.replace("  - a:", "  - a: echo $$ > pid; exit 7\n    start: yes\n  - a: until"
                           " grep -qs ^State:.Z /proc/$(cat pid)/status; do sleep 0.05; done;"),
             "status 7"),
            (SMALL.replace("  - a:", "  - a: echo no\n    start: yes\n    ready: there\n  - a:"),
             "'there' was not printed"),
        ):
            point = self.point(self.ran(text))
            self.assertEqual(point["outcome"], "failed", text)
            self.assertIn(reason, point["reason"])

    def test_background(self) -> None:
        """Scripts have their interpreter; what a program leaves is saved when it is ended."""
        steps = "    start: yes\n    save: out\n  - a: until [ -s out ]; do sleep 0.1; done"
        text = SMALL.replace("    save: out", steps)
        text = text.replace("- a: echo 1 > out", "- a: {script: go.py}")
        script = (
            "#!/usr/bin/env python3\nopen('out', 'w').write('5')\nimport time; time.sleep(60)\n"
        )
        point = self.point(self.ran(text, {"go.py": script}))
        self.assertEqual((point["outcome"], point["results"]), ("done", {"v": [5.0]}))

    def test_client_that_is_killed(self) -> None:
        """What it left is sealed as it is, and gone on with: no command runs twice."""
        ran = self.place / "ran"

        def tell(line: str) -> None:
            if line.startswith("point 2"):
                os._exit(0)  # as by SIGKILL: nothing is torn down

        runner, folder = self.runner(SMALL.replace("measure:", f"""\
variables: {{A: [1, 2, 3]}}
measure:
  - a: echo $A >> {ran}"""), tell=tell)
        child = os.fork()
        if not child:
            try:
                runner.run({}, force=False)
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        target = folder.path.with_suffix(".zip")
        seal(folder.path, target)
        sealed = Archive(target)
        self.assertEqual((verify(sealed), sealed.manifest["state"]), ([], "running"))
        self.assertEqual(sorted(sealed.points()), [1, 2])
        self.images = {name: "9" * 64 for name in [*self.images, *sealed.manifest["held"]]}
        (held,) = sealed.manifest["held"]
        self.booting = held
        self.assertTrue(self.again(folder))
        self.assertEqual(ran.read_text(), "1\n2\n3\n")
        archive = Archive(folder.path)
        self.assertEqual((archive.manifest["state"], archive.manifest["held"]), ("done", {}))
        self.assertNotIn(held, self.images)

    def test_node_that_does_not_boot(self) -> None:
        """What a node lost is unknown; without it the run ends in words, and is torn down."""
        torn = self.place / "torn"

        def late(node_set: object, timeout: float) -> None:
            raise TimeoutException

        def tell(line: str) -> None:
            if line.startswith("point 1"):
                self.patch(running.NodeSet, "wait", late)

        runner, folder = self.runner(SMALL.replace("measure:", f"""\
repetitions: 2
teardown:
  - a: touch {torn}
measure:
  - a: rm {self.place}/node/*-p00001-t1-0"""), tell=tell)
        failure = self.assertRaises(Failure, runner.run, {}, force=False)
        self.assertEqual(str(failure), "a node did not boot again")
        points = Archive(folder.path).points()
        self.assertEqual([point["outcome"] for point in points.values()], ["unknown"])
        self.assertIn("lost the command", points[1]["reason"])
        self.assertTrue(torn.exists())

    def test_lease_that_is_lost(self) -> None:
        """Nothing more is done to nodes that somebody else has; later the run goes on."""
        torn = self.place / "torn"

        def tell(line: str) -> None:
            if line.startswith("point 1"):
                self.lost = "bob has reserved n-a"

        runner, folder = self.runner(
            SMALL + f"repetitions: 2\nteardown:\n  - a: touch {torn}\n", tell=tell
        )
        failure = self.assertRaises(Failure, runner.run, {}, force=False)
        self.assertIn("bob has reserved n-a", str(failure))
        archive = Archive(folder.path)
        self.assertEqual(
            (archive.manifest["state"], sorted(archive.points()), torn.exists()),
            ("interrupted", [1], False),
        )
        self.assertNotIn("cs.nodes.set_image", [call for call, _ in self.calls])
        self.lost = ""
        self.assertTrue(self.again(folder))
        self.assertTrue(torn.exists())

    def changed(self) -> list[str]:
        """Return what was done to nodes and images since the test looked, by its calls."""
        found = [
            f"{call} {named.get('devices') or named.get('nodes') or named.get('image')}"
            for call, named in self.calls if "set_" in call or "remove" in call
        ]
        self.calls.clear()
        return found

    def manifest(self, folder: Folder) -> dict[str, Any]:
        """Return the manifest of a run."""
        found: dict[str, Any] = Archive(folder.path).manifest
        return found

    def holds_nothing(self, folder: Folder) -> None:
        """Check that all was given back."""
        manifest = self.manifest(folder)
        self.assertEqual(
            (manifest["held"], manifest["before"], manifest["owes"]), ({}, {}, [])
        )
        self.assertEqual((self.booting, len(self.images)), ("ann/x:latest", 2))

    def test_folder_of_another_run(self) -> None:
        """Nothing is written into it, whatever fails; two do not go on with one at once."""
        folder = self.ran()
        before = (folder.path / "manifest.json").read_bytes()
        self.patch(program, "cast", lambda found, given: Cast({"a": ["n-a"]}))
        run = experiment.Run("other", roles={"a": {}}, to=str(folder.path), tell=self.told.append)
        self.assertIn("exists", str(self.assertRaises(Failure, run.__enter__)))
        experiment_, text, scripts = experiment_of(Archive(folder.path)), SMALL, {}
        manifest = manifest_of(experiment_, Cast({"a": ["n-a"]}), text) | {"commit": None}
        runner = Runner(experiment_, scripts, Folder(folder.path), manifest, self.told.append)
        self.assertRaises(Failure, runner.run, {}, force=True)
        self.assertEqual((folder.path / "manifest.json").read_bytes(), before)
        folder.resume()
        second = Folder(folder.path)
        self.assertIn("another program", str(self.assertRaises(Failure, second.resume)))
        folder.leave()
        second.resume()
        second.leave()

    def test_nodes_that_cannot_be_had(self) -> None:
        """A run that did nothing leaves no folder; a later part leaves all as it was."""
        self.others = {"n-a": "CONFLICT"}
        runner, folder = self.runner()
        self.assertRaises(Refused, runner.run, {}, force=False)
        self.assertFalse(folder.path.exists())
        self.others = {}

        def tell(line: str) -> None:
            if line.startswith("point 1"):
                raise KeyboardInterrupt

        runner, folder = self.runner(HELD + "repetitions: 2\n", tell=tell)
        self.assertRaises(KeyboardInterrupt, runner.run, {}, force=False)
        held = self.manifest(folder)["held"]
        self.others = {"n-a": "CONFLICT"}
        self.changed()
        self.assertRaises(Refused, self.again, folder)
        self.assertEqual((self.changed(), self.manifest(folder)["held"]), ([], held))
        self.others = {}
        self.assertTrue(self.again(folder))
        self.holds_nothing(folder)

    def test_lease_that_is_lost_at_the_end(self) -> None:
        """Neither retries, nor teardown, settings and images reach nodes of somebody else."""
        torn = self.place / "torn"
        text = HELD + f"limits: {{retries: 2}}\nteardown:\n  - a: touch {torn}\n"
        for command_, outcome in (("echo 1 > out", "unknown"), ("exit 1", "unknown")):
            def lose(node: str, script: str, limit: float) -> Result:
                if "p00001" in script:
                    self.lost = "bob has reserved n-a"
                return self.run_here(node, script, limit)

            self.lost = ""
            self.patch(running, "Channels", lambda lose=lose: LocalShells(lose))
            runner, folder = self.runner(text.replace("echo 1 > out", command_))
            self.calls.clear()
            failure = self.assertRaises(Failure, runner.run, {}, force=False)
            self.assertIn("bob has reserved n-a", str(failure))
            point, manifest = self.point(folder), self.manifest(folder)
            self.assertEqual((point["outcome"], point["tries"]), (outcome, 1))
            self.assertEqual((manifest["state"], torn.exists()), ("interrupted", False))
            self.assertEqual(self.changed(), ["cs.devices.set_config n-a"])
            self.lost = ""
            self.patch(running, "Channels", lambda: LocalShells(self.run_here))
            self.again(folder)
            self.assertTrue(torn.exists(), (command_, self.told))
            self.holds_nothing(folder)
            torn.unlink()

    def test_lease_that_is_lost_before_a_boot(self) -> None:
        """What a node lost is not set up again on a node of somebody else."""
        up = self.place / "up"

        def tell(line: str) -> None:
            if line.startswith("point 1"):
                up.unlink()
                self.lost = "bob has reserved n-a"

        runner, _ = self.runner(SMALL.replace("measure:", f"""\
repetitions: 2
setup:
  - a: touch {up}
measure:
  - a: rm {self.place}/node/*-p00001-t1-0"""), tell=tell)
        self.assertRaises(Failure, runner.run, {}, force=False)
        self.assertFalse(up.exists())

    def test_interrupted_at_the_end(self) -> None:
        """Whoever goes on does what is owed: teardown, logs, settings and images."""
        torn = self.place / "torn"
        text = HELD + f"teardown:\n  - a: touch {torn}\nlogs: {{streams: .}}\n"

        def stop(*words: object, **named: object) -> None:
            raise KeyboardInterrupt

        usual = running.Runner._beside_points

        def stop_teardown(runner: Runner, scope: str, steps: Any) -> None:
            stop() if scope == "teardown" else usual(runner, scope, steps)

        for module, name, stopping in (
            (duties, "collect", stop), (running.Runner, "_beside_points", stop_teardown),
            (holding.Holding, "release", stop),
        ):
            runner, folder = self.runner(text)
            was = getattr(module, name)
            setattr(module, name, stopping)
            try:
                self.assertRaises(KeyboardInterrupt, runner.run, {}, force=False)
            finally:
                setattr(module, name, was)
            self.assertNotEqual(self.manifest(folder)["owes"], [])
            self.assertTrue(self.again(folder))
            self.assertTrue(torn.exists(), name)
            self.assertTrue((folder.path / "logs.json").exists(), name)
            self.holds_nothing(folder)
            self.assertEqual(self.manifest(folder)["state"], "done")
            torn.unlink()
            self.deeds.clear()
            self.assertTrue(self.again(folder))
            self.assertEqual(self.deeds, [])

    def test_given_back(self) -> None:
        """A run that nobody goes on with gives back what it holds, of each node that can be had."""
        def tell(line: str) -> None:
            self.told.append(line)
            if line.startswith("point 1"):
                raise KeyboardInterrupt

        text = HELD.replace("measure:", "  b: {image: x, settings: {ram: 2G}}\nmeasure:")
        runner, folder = self.runner(text + "repetitions: 2\n", tell=tell)
        self.assertRaises(KeyboardInterrupt, runner.run, {}, force=False)
        self.changed()
        self.others = {"n-a": "CONFLICT"}
        out = io.StringIO()
        with redirect_stdout(out):
            self.assertEqual(command.release(str(folder.path)), 1)
        self.assertIn("n-a is left alone: n-a is reserved by bob", out.getvalue())
        self.assertEqual(self.changed(), ["cs.devices.set_config n-b"])
        self.others = {"n-a": "NOT_FOUND"}
        with redirect_stdout(out):
            self.assertEqual(command.release(str(folder.path)), 0)
        self.holds_nothing(folder)
        self.assertEqual(self.manifest(folder)["state"], "released")
        self.assertIn("given back", str(self.assertRaises(Failure, self.again, folder)))
        self.deeds.clear()
        with redirect_stdout(out):
            self.assertEqual(command.release(str(folder.path)), 0)
        self.assertEqual(self.deeds, [])

    def test_node_that_was_removed(self) -> None:
        """The settings of the others are put back all the same."""
        def tell(line: str) -> None:
            if line.startswith("point 1"):
                self.others = {"n-a": "NOT_FOUND"}

        text = HELD.replace("measure:", "  b: {image: x, settings: {ram: 2G}}\nmeasure:")
        runner, folder = self.runner(text, tell=tell)
        runner.run({}, force=False)
        self.holds_nothing(folder)
        self.assertIn("cs.devices.set_config n-b", self.changed())

    def test_image_of_an_earlier_part(self) -> None:
        """Points of one run are measured with one image."""
        def tell(line: str) -> None:
            if line.startswith("point 1"):
                raise Failure("the disk is full")

        runner, folder = self.runner(HELD + "repetitions: 2\n", tell=tell)
        self.assertRaises(Failure, runner.run, {}, force=False)
        self.holds_nothing(folder)
        shutil.rmtree(self.place / "node")
        self.images["ann/x:latest"] = "5" * 64
        self.assertIn("another image", str(self.assertRaises(Failure, self.again, folder)))
        self.holds_nothing(folder)

    def test_what_programs_say(self) -> None:
        """Any character is text, halves of characters are none; words without effect are refused.
        """
        self.patch(program, "cast", lambda found, given: Cast({"a": ["n-a"]}))
        text = "\U0001f600 \x7f \x85 \u2028 \xe9"
        run = experiment.Run(
            "small", roles={"a": {}}, variables={"V": [text]}, licence=text,
            to=str(self.place / "p"), tell=self.told.append,
        )
        with run:
            for point in run.points():
                with point:
                    told = point.do("a", 'printf %s "$V"')
                    self.assertEqual(told, {"n-a": text})
                    for name in ("reason", "point"):
                        self.assertRaises(Failure, point.result, name, 1)
        self.assertEqual(self.point(Folder(run.folder))["values"], {"V": text})
        for how in ({"variables": {"V": ["\ud83d"]}}, {"limits": {"retries": 2}},
                    {"variables": {"\ud83d": ["1"]}}):
            self.assertRaises(Failure, experiment.Run, "small", roles={"a": {}}, **how)

    def test_program_that_is_interrupted(self) -> None:
        """Nobody goes on with it: it gives back at once; one that was killed, by a command."""
        self.patch(program, "cast", lambda found, given: Cast({"a": ["n-a"]}))
        roles = {"a": {"image": "x", "settings": {"ram": "1G"}}}

        def run(name: str) -> experiment.Run:
            return experiment.Run(
                "small", roles=roles, to=str(self.place / name), tell=self.told.append
            )

        with self.assertRaises(KeyboardInterrupt), run("one") as stopped:
            raise KeyboardInterrupt
        self.holds_nothing(Folder(stopped.folder))
        self.assertEqual(self.manifest(Folder(stopped.folder))["state"], "interrupted")
        child = os.fork()
        if not child:
            with run("two"):
                os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        killed = Folder(self.place / "two")
        (held,) = self.manifest(killed)["held"]
        self.images[held] = self.images["ann/x:latest"]
        self.booting = held
        self.assertRaises(Failure, command.resume, str(killed.path), False)
        with redirect_stdout(io.StringIO()):
            self.assertEqual(command.release(str(killed.path)), 0)
        self.holds_nothing(killed)
        with run("three") as left:
            for _ in left.points():
                break
        self.assertEqual(self.manifest(Folder(left.folder))["state"], "interrupted")

    def test_boots_of_a_forced_run(self) -> None:
        """They are in its archive; nodes that cannot be had then get their settings again."""
        asked: list[float] = []

        class Boot(SimpleNamespace):
            def _asdict(self) -> dict[str, object]:
                return {"node": "n-a", "asked": self.asked, "outcome": "ready", "seconds": 1.0}

        def boot(node_set: object, image: str, force: bool = False) -> bool:
            asked.append(time.time() + 5.0)  # by the clock of the server
            self.booting = f"ann/{image}:latest"
            return True

        self.patch(collecting, "MARGIN", 0.0)
        self.patch(collecting, "boots_of", lambda names, last: [Boot(asked=one) for one in asked])
        self.patch(running.NodeSet, "boot", boot)
        runner, folder = self.runner(HELD)
        runner.run({}, force=True)
        self.assertEqual(len(Archive(folder.path).json("boots.json")), 1)

        def refuse(node_set: object, timeout: float) -> None:
            raise TimeoutException

        self.patch(running.NodeSet, "wait", refuse)
        runner, folder = self.runner(HELD)
        self.assertRaises(Failure, runner.run, {}, force=True)
        self.holds_nothing(folder)
        self.assertEqual(self.manifest(folder)["state"], "failed")

    def program(self, **how: Any) -> experiment.Run:
        """Return a run whose steps a program tells."""
        more = how.pop("cast", {})
        self.patch(program, "cast", lambda found, given: Cast(
            {role.name: [f"n-{role.name}"] for role in found.roles}, **more
        ))
        return experiment.Run(
            "small", roles={"a": {}, "b": {}}, variables={"N": [1, 2, 3]}, to=str(self.place / "p"),
            results={"v": {"tolerance": "10%"}}, tell=self.told.append, **how,
        )

    def test_program(self) -> None:
        """It measures by its own loop; a step that fails is a point that failed."""
        script = self.place / "go.py"
        script.write_text(PROGRAM)
        self.patch(sys, "argv", ["/usr/bin/pytest"])
        self.patch(experiment, "Run", runpy.run_path(str(script))["made"])
        with self.program() as run:
            run.do("all", f"touch {self.place}/up")
            for point in run.points():
                with point:
                    point.start("b", "echo there; sleep 60", ready="there")
                    told = point.do("a", 'echo "$N $WALT_POINT" | tee out', save="out")
                    self.assertEqual(told, {"n-a": f"{point.number} {point.number}\n"})
                    self.assertEqual(point.file("a", "out").read_text(), told["n-a"])
                    if point.values["N"] == "2":
                        point.do("a", "exit 3")
                    point.result("v", 1.5 * point.number)
        archive = Archive(run.folder)
        points = archive.points()
        self.assertEqual(
            [(one["outcome"], one["results"]) for one in points.values()],
            [("done", {"v": [1.5]}), ("failed", {}), ("done", {"v": [4.5]})],
        )
        self.assertIn("status 3", points[2]["reason"])
        self.assertEqual(archive.manifest["state"], "done")
        self.assertEqual(archive.scripts(), {"go.py": PROGRAM})
        found = experiment_of(archive)
        self.assertEqual((found.program, found.results[0].tolerance), ("go.py", 0.1))
        self.assertEqual(self.deeds, ["reserve", "boot", "boot", "free"])
        self.assertTrue((self.place / "up").exists())
        for again in (command.repeat, command.replay):
            self.assertIn("run that", str(self.assertRaises(
                Failure, again, str(run.folder), None, None, False, False
            )))
        self.assertRaises(Failure, command.resume, str(run.folder), False)

    def test_program_that_fails(self) -> None:
        """What it does wrong is told; its own error ends the run, which is torn down."""
        for how, told in (
            ({"cast": {"missing": ["a: 1 more node"]}}, "missing: a: 1 more node"),
            ({"cast": {"disturbed": ["n-a: bob's"]}}, "disturbs: n-a: bob's"),
            ({"cast": {"reserved": ["n-a"]}}, "reserved by a program that runs: n-a"),
        ):
            run = self.program(**how)
            self.assertIn(told, str(self.assertRaises(Failure, run.__enter__)))
        self.assertRaises(Failure, self.program, limits={"boot": "soon"})
        run = self.program()
        self.assertRaises(Failure, run.do, "a", "true")
        with self.assertRaises(ZeroDivisionError), run:
            for words in (("c", "true"), ("a", ""), ("a", "x\0"), ("a", "x" * 50_000)):
                self.assertRaises(Failure, run.do, *words)
            (point, *_) = run.points()
            self.assertRaises(Failure, point.do, "a", "true")
            with point:
                self.assertRaises(Failure, point.do, "a", "true", save=["../x"])
                self.assertRaises(Failure, point.result, "a/b", 1.0)
                raise ZeroDivisionError
        archive = Archive(run.folder)
        self.assertEqual(
            (archive.manifest["state"], archive.points()[1]["outcome"]), ("failed", "interrupted")
        )

    def test_where_a_program_is_from(self) -> None:
        """Its commit is told, with changes that are in none; a large program is not kept."""
        git = ["git", "-C", str(self.place), "-c", "user.name=a", "-c", "user.email=a@b.c"]
        script = self.place / "go.py"
        script.write_text(PROGRAM)
        for words in (["init", "-q"], ["add", "go.py"], ["commit", "-qm", "x"], ["tag", "v1"]):
            subprocess.run([*git, *words], check=True, timeout=60)
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], check=True, timeout=60, capture_output=True, text=True
        ).stdout.strip()
        self.assertEqual(origin.commit_of(script), commit)
        script.write_text(PROGRAM + "#" * (1 << 20))
        self.assertEqual(origin.commit_of(script), f"{commit}-dirty")
        self.patch(experiment, "Run", runpy.run_path(str(script))["made"])
        self.program()
        self.assertIn("is not kept", self.told[-1])

    def test_setup_that_fails(self) -> None:
        """The run says so, is torn down, and can be gone on with."""
        torn = self.place / "torn"
        runner, folder = self.runner(
            SMALL + f"setup:\n  - a: exit 1\nteardown:\n  - a: touch {torn}\n"
        )
        self.assertRaises(Failure, runner.run, {}, force=False)
        self.assertEqual((Archive(folder.path).manifest["state"], torn.exists()), ("failed", True))

    def test_lines_of_others(self) -> None:
        """Between two parts of a run, nodes serve others."""
        _, folder = self.runner(SMALL + "logs: {streams: s}\n")
        manifest = Archive(folder.path).manifest
        now = time.time()
        manifest.update(state="interrupted", spans=[[now - 1000, now - 900]], began=now - 1000)
        folder.write_manifest(manifest)
        self.lines = [
            (now - ago, "n-a", stream, str(ago)) for ago in (950, 500) for stream in ("s", "no")
        ]
        self.again(folder)
        rows = read_table(folder.path / "logs.parquet").to_pylist()
        self.assertEqual(
            [(row["line"], row["aligned"], row["error_us"]) for row in rows],
            [("950", rows[0]["timestamp"], None)],
        )
        self.assertEqual(counts_of(Archive(folder.path)), {"s": 1})

    def test_lines_after_a_kill(self) -> None:
        """The time of a run that was killed ends where it wrote last."""
        _, folder = self.runner(SMALL + "logs: {streams: .}\n")
        manifest = self.manifest(folder)
        now = time.time()
        manifest.update(spans=[[now - 1000 + 5, None]], began=now - 1000)
        folder.write_manifest(manifest)
        os.utime(folder.path / "manifest.json", (now - 900, now - 900))
        self.lines = [(now - ago + 5, "n-a", "console", str(ago)) for ago in (950, 500)]
        self.again(folder)
        rows = read_table(folder.path / "logs.parquet").to_pylist()
        self.assertEqual([row["line"] for row in rows], ["950"])

    def test_clocks(self) -> None:
        """They are asked before and after; lines that nodes stamp gain the server's time."""
        fifo = self.place / "fifo"
        os.mkfifo(fifo)
        status = self.place / "ptpd.status"
        status.write_text("Port state : PTP_SLAVE\nOffset from Master : -0.5 s\n")
        self.patch(
            timing, "_STATE",
            f"[ -p {fifo} ] && echo node\n{question('/nowhere', [str(status)], [])}",
        )
        runner, folder = self.runner(SMALL + "logs: {streams: .}\n")
        moment = time.time()
        hour = time.time() - 3600
        self.lines = [
            # The node stamps by this machine's clock, which is 5 s behind the server's.
            (moment, "n-a", "mark", "x"), (moment + 5, "n-a", "console", "x"),
            (moment - 5, "n-a", "mark", "early"), (moment, "n-a", "console", "early"),
            (hour, "n-a", "mark", "early"),
        ]
        runner.run({}, force=False)
        clocks = Archive(folder.path).json("clocks.json")
        self.assertEqual((len(clocks["nodes"]["n-a"]), clocks["steps"]), (2, {}))
        self.assertEqual(clocks["ptp"], {
            "n-a": {"client": "ptpd", "state": "slave", "offset": -0.5},
        })
        for _, offset, error in clocks["nodes"]["n-a"]:
            self.assertTrue(-5.0 - error <= offset <= -5.0 + error, (offset, error))
        mark, console = read_table(folder.path / "logs.parquet").to_pylist()
        apart = (mark["aligned"] - mark["timestamp"]).total_seconds() - 5.0
        self.assertLessEqual(abs(apart), mark["error_us"] / 1e6)
        self.assertEqual(
            (console["aligned"], console["error_us"]), (console["timestamp"], None)
        )
        # Where nobody tells a time, nothing is known of clocks, and the run goes on.
        self.patch(timing, "exchange", self.no_time)
        self.assertEqual(Archive(self.ran().path).json("clocks.json")["nodes"], {"n-a": []})

    def no_time(self, shells: object, node: str) -> None:
        """Tell no time."""
        raise Failure("no time")

    def test_people(self) -> None:
        """With force their nodes are booted before they are reserved; what the API says is told."""
        runner, _ = self.runner()
        runner.run({}, force=True)
        self.assertEqual(self.deeds, ["boot force", "reserve", "free"])
        for error, told in (
            (NodeNotOwnedException("not yours: n-a (bob's); force=True goes on"), "not yours: n-a"),
            (TimeoutException(), "too long"),
        ):
            def refuse(node_set: object, image: str, error: Exception = error, **how: Any) -> bool:
                raise error

            self.patch(running.NodeSet, "boot", refuse)
            runner, _ = self.runner()
            failure = self.assertRaises(Failure, runner.run, {}, force=False)
            self.assertIn(told, str(failure))
            self.assertNotIn("force=True", str(failure))

    def test_folder_of_a_stranger(self) -> None:
        """Nothing is written where its links lead, nor to whom it has no roles for."""
        outside = self.place / "outside"
        outside.mkdir()
        _, folder = self.runner()
        (folder.path / ".manifest.json.new").symlink_to(outside / "rc")
        folder.leave()
        self.assertRaises(Failure, folder.resume)
        (folder.path / ".manifest.json.new").unlink()
        (folder.path / ".lock").unlink()
        (folder.path / ".lock").symlink_to(outside / "rc")
        self.assertRaises(Failure, folder.resume)
        (folder.path / ".lock").unlink()
        folder.resume()
        folder.write_manifest(Archive(folder.path).manifest)
        self.assertEqual(list(outside.iterdir()), [])
        manifest = Archive(folder.path).manifest
        manifest["roles"] = {"other": ["n1"]}
        folder.write_manifest(manifest)
        self.assertRaises(Failure, self.again, folder)

    def test_files_of_people(self) -> None:
        """What they put into a folder is none of ours."""
        folder = self.ran()
        (folder.path / "my notes.txt").write_text("x")
        (folder.path / ".git").mkdir()
        (folder.path / ".git" / "HEAD").write_text("x")
        self.assertFalse({"my notes.txt", ".git/HEAD"} & Archive(folder.path).names)

    def test_point_of_another_number(self) -> None:
        """A file of a point has its number as its name: none replaces another one."""
        folder = self.ran()
        points = folder.path / "points"
        shutil.copy(points / "00001.json", points / "00002.json")
        self.assertIn("00002.json is of the point 1", str(
            self.assertRaises(Failure, Archive(folder.path).points)
        ))

    def test_sealed_twice_at_once(self) -> None:
        """Who is second says so; what the first wrote is whole."""
        folder = self.ran()
        target = self.place / "run.zip"
        add = sealing._add_file

        def slowly(*words: Any) -> str:
            self.patch(sealing, "_add_file", add)
            seal(folder.path, target)
            return add(*words)

        self.patch(sealing, "_add_file", slowly)
        self.assertIn("exists now", str(self.assertRaises(Failure, seal, folder.path, target)))
        self.assertEqual(verify(Archive(target)), [])
        self.assertEqual(list(self.place.glob(".*.new")), [])

    def test_sealed_with_images(self) -> None:
        """Whatever stops them, nothing half is left; where the folder has them, nobody is asked."""
        folder = self.ran()
        target = self.place / "run.zip"
        for stopped, raised in (
            (OSError(errno.ENOSPC, "No space left on device"), Failure),
            (Failure("the image x is not on the platform any more"), Failure),
            (KeyboardInterrupt(), KeyboardInterrupt),
        ):
            def images(archive: Archive, write: Callable[[bytes], object]) -> None:
                write(b"half of them")
                raise stopped  # noqa: B023 (called within this turn)

            told = str(self.assertRaises(raised, seal, folder.path, target, images))
            self.assertIn(getattr(stopped, "strerror", None) or str(stopped), told)
            self.assertEqual(list(self.place.glob("*run.zip*")), [])
        (folder.path / "images").mkdir()
        (folder.path / "images" / "oci.tar").write_bytes(b"all of them")
        seal(folder.path, target, images)
        self.assertEqual(Archive(target).data("images/oci.tar"), b"all of them")
        out, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(errors):
            self.assertEqual(command.show(str(target), False), 1)
        self.assertIn("done", out.getvalue())
        self.assertIn("is refused: it cannot be read", errors.getvalue())
        self.assertIn(
            ("?", "images that an archive keeps cannot be read"),
            [(one.mark, one.text) for one in compare(Archive(target), Archive(folder.path))],
        )

    def test_forged_lines(self) -> None:
        """A reason is one line, whatever it says."""
        folder = self.ran()
        point = self.point(folder)
        point.update(outcome="failed", reason="x\n= nothing differs\x1b[2J")
        other = self.place / "other"
        shutil.copytree(folder.path, other)
        forged = Folder(other)
        forged.resume()
        forged.write_point(point)
        with redirect_stdout(io.StringIO()) as told:
            command.diff(str(folder.path), str(other), False)
            command.show(str(other), False)
        self.assertNotIn("\n= nothing", told.getvalue())
        self.assertNotIn("\x1b", told.getvalue())
        self.assertIn("failed", table(Archive(other)))
        self.assertIn("points: 1 failed\n", told.getvalue())
        self.assertIn("\npoint 1: x\\n= nothing differs", told.getvalue())

    def test_reasons(self) -> None:
        """Each is told once and whole, with its points, and without names of ours."""
        text = SMALL.replace("echo 1 > out", "nowhere-to-be-found").replace("    save: out\n", "")
        text = text[:text.index("results:")] + "repetitions: 2\n"
        runner, folder = self.runner(text)
        self.assertFalse(runner.run({}, force=False))
        line = "\n".join(reasons(Archive(folder.path)))
        self.assertRegex(line, "^points 1, 2: n-a: status 127: nowhere-to-be-found: .*not found$")
        self.assertNotIn(str(self.place), line)

    def test_limits(self) -> None:
        """Of a command in time, not in turns; of an outage, not of all of them together."""
        began = time.monotonic()
        found = detached.perform(LocalShells(self.run_here), "n", "late", "true", "sleep 60", 2)
        self.assertEqual(found.outcome, "timeout")
        self.assertLess(time.monotonic() - began, 30)
        outages = [0.3, 0.6]

        def flaky(node: str, text: str, limit: float) -> Result:
            if outages:
                time.sleep(outages.pop(0))
                raise Failure("lost")
            return self.run_here(node, text, limit)

        shells = LocalShells(flaky)
        # The first attempt reached nothing: nobody knows.
        found = detached.perform(
            shells, "n", "two", "true", "true", 30, patience=0.5, again=0.01, held=0.2
        )
        self.assertEqual(found.outcome, "unknown")

        def large(node: str, text: str, limit: float) -> Result:
            raise TooMuch("the command printed more than 64 MiB")

        found = detached.perform(LocalShells(large), "n", "big", "true", "yes", 30)
        self.assertEqual((found.outcome, found.status), ("ended", -1))

    def test_searches(self) -> None:
        """An expression that would go on for ever is given up."""
        self.assertRaises(ValueError, finding.number, "(a+)+b", "a" * 60, limit=0.5)
        self.assertEqual(finding.number("([0-9.]+)", "x 4.5"), 4.5)
