"""Archives of experiments in the browser: points, plots, what differs; broken and hostile ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scripts import make_assets
from tests.patience import patient
from tests.places import ON_DISK
from tests.system import browser
from tests.system.browser import Browser
from tests.system.live import LivePlatform, why_not
from tests.system.test_web import HOSTILE, free_port
from walt.client.experiment.archive import Folder
from walt.client.experiment.sealing import seal

TEXT = "name: delays\nroles:\n  a: {}\nmeasure:\n  - a: echo 1\n"
SIZES = (64, 512, 1400)
FIRST, SECOND = ".bar label:nth-of-type(1) input", ".bar label:nth-of-type(2) input"


def archive(place: Path, *, run: str = "0" * 12, more: float = 0.0, **changes: Any) -> Path:
    """Return a sealed archive: two modes, three sizes, two repetitions; the last point failed."""
    manifest = {
        "format": 1, "name": "delays", "licence": "", "run": run, "began": 1.7e9, "ended": 1.8e9,
        "state": "done", "walt": {"client": "11", "server": "11"}, "definition": "d" * 64,
        "commit": None, "roles": {"a": ["n1"]}, "nodes": {}, "booted": {}, "spans": [],
        "images": {"ann/x:latest": "1" * 64}, **changes,
    }
    folder = Folder(place / run)
    folder.begin(manifest, TEXT, {})
    number = 0
    for mode in ("fast", "slow"):
        for size in SIZES:
            for repetition in (1, 2):
                number += 1
                done = number < 12
                folder.write_point({
                    "number": number, "repetition": repetition,
                    "values": {"SIZE": str(size), "MODE": mode}, "tries": 1,
                    "outcome": "done" if done else "failed", "reason": "" if done else HOSTILE[0],
                    "began": 1.7e9, "seconds": 1.5, "commands": [],
                    "results": {"delay": [size / 100 + repetition + more]} if done else {},
                })
    target = place / f"{run}.zip"
    seal(folder.path, target)
    return target


def rewritten(source: Path, name: str, files: dict[str, bytes]) -> Path:
    """Return a copy of an archive with other files."""
    target = source.with_name(name)
    with zipfile.ZipFile(source) as one, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as two:
        for entry in one.namelist():
            two.writestr(entry, files.get(entry, one.read(entry)))
    return target


def wrong_ones(good: Path) -> list[tuple[Path, str]]:
    """Return files that are no archives, and what the page says of them."""
    place, data = good.parent, good.read_bytes()

    def file(name: str, content: bytes) -> Path:
        (place / name).write_bytes(content)
        return place / name

    with zipfile.ZipFile(good) as one:
        point = json.loads(one.read("points/00001.json"))
        manifest = json.loads(one.read("manifest.json"))
    # A file that says it is small, and is not.
    bomb = rewritten(good, "whole.zip", {"points/00001.json": b"[" + b" " * (1 << 20) + b"]"})
    lying = bytearray(bomb.read_bytes())
    entry = lying.index(b"points/00001.json", lying.rindex(b"PK\x01\x02manifest"[:4]) // 2)
    while lying[entry - 46:entry - 42] != b"PK\x01\x02":
        entry = lying.index(b"points/00001.json", entry + 1)
    lying[entry - 22:entry - 18] = (100).to_bytes(4, "little")
    return [
        (file("empty.zip", b""), "cut, or no archive|no archive"),
        (file("text.zip", b"no archive " * 100), "it is no archive"),
        (file("cut.zip", data[len(data) // 2:]), "damaged|no archive|cut"),
        (file("bomb.zip", bytes(lying)), "damaged"),
        (rewritten(good, "names.zip", {"manifest.json": b"{"}), "manifest.json of it is damaged"),
        (rewritten(good, "list.zip", {"manifest.json": b"[]"}), "its manifest is none"),
        (rewritten(good, "roles.zip", {
            "manifest.json": json.dumps({**manifest, "roles": 3}).encode(),
        }), "its manifest is none"),
        (rewritten(good, "results.zip", {
            "points/00001.json": json.dumps({**point, "results": {"delay": ["1"]}}).encode(),
        }), "one of its results is no number"),
        (rewritten(good, "outcome.zip", {
            "points/00001.json": json.dumps({**point, "outcome": "<b>"}).encode(),
        }), "one of its points is none"),
        (rewritten(good, "number.zip", {
            "points/00001.json": json.dumps({**point, "number": 2}).encode(),
        }), "one of its points is none"),
        (rewritten(good, "many.zip", {"points/00001.json": json.dumps({
            **point, "results": {f"r{number}": [1] for number in range(100_000)},
        }).encode()}), "more than 1000 results"),
        (rewritten(good, "large.zip", {"points/00001.json": b" " * (5 << 20)}), "too large"),
    ]


class ArchivePagesTests(TestCase):
    skip = why_not() or browser.why_not()
    timeout = patient(240)

    async def test_archives(self) -> None:
        """One is shown, two are compared; what is none is told, and nothing is sent."""
        from twisted.internet import reactor

        self.assertEqual(await deferToThread(make_assets.main), 0)  # unless they are there
        platform = LivePlatform(reactor)
        platform.ui_port = free_port()
        platform.write_config()
        self.addCleanup(platform.close)
        await platform.start()
        self.place = Path(tempfile.mkdtemp(dir=ON_DISK))
        self.addCleanup(shutil.rmtree, self.place)
        link = (await platform.ok("web")).strip()
        page = await deferToThread(Browser, f"http://127.0.0.1:{platform.ui_port}")
        self.addCleanup(deferToThread, page.close)
        self.platform = platform
        for work in (self.running, self.one, self.two, self.none, self.odd):
            await deferToThread(work, page, link)
            self.assertEqual(page.look(), [])
            self.assertEqual(await deferToThread(page.serious), [])

    def report(self, user: str, **changes: Any) -> None:
        """Tell of a run, as a client does."""
        told = {
            "run": "a" * 12, "name": "delays", "state": "running", "nodes": [],
            "began": 1.7e9, "point": 3, "points": 12, "failed": 0, "failed_point": 0, **changes,
        }
        code = (
            "import json, sys; from walt.client.scripting.link import LINK;"
            "LINK.call('cs.experiments.report', **json.loads(sys.argv[1]))"
        )
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(told)], check=True, timeout=patient(60),
            env={**os.environ, **self.platform.environment(user)},
        )

    def running(self, page: Browser, link: str) -> None:
        """Who runs what now, and how far it is, while it changes."""
        page.go(link)
        page.shows("Nodes", "h1")
        page.click("nav a", "Experiments")
        page.shows("No experiment runs, nor has one ended within the hour.")
        self.report("bob")
        page.shows("delays\tbob\trunning\t3 of 12\t0\t", "table[aria-label=Runs]")
        self.report("bob", point=7, failed=2, failed_point=6)
        page.shows("7 of 12\t2, last point 6", "table[aria-label=Runs]")
        self.report("bob", point=12, state="done")
        page.shows("bob\tdone\t12 of 12", "table[aria-label=Runs]")

    def one(self, page: Browser, link: str) -> None:
        """Points as a grid, results as plots."""
        self.good = archive(self.place)
        page.go("/ui/experiments")
        page.shows("Experiments", "h1")
        page.type(FIRST, str(self.good))
        page.shows("12 points: ✓ 11 done, ✗ 1 failed", "section")
        cells = [one.get_attribute("title") for one in page.all(".points li")]
        self.assertEqual(
            (len(cells), cells[0]),
            (12, "point 1: MODE=fast SIZE=64, repetition 1, done, 1.5 s"),
        )
        self.assertIn(HOSTILE[0], cells[11])
        self.assertEqual(page.all(".points script, .points img"), [])
        # Lines for the two modes over the sizes, a dot for each median.
        self.assertEqual(len(page.all("svg.plot polyline")), 2)
        self.assertEqual(len(page.all("svg.plot circle")), 6)
        self.assertIn("over SIZE", str(page.all("svg.plot")[0].get_attribute("aria-label")))
        page.shows("MODE=slow SIZE=512\t6.62 (n=2)", "figure table")

    def two(self, page: Browser, link: str) -> None:
        """The second one in the same plots, with a list of what differs."""
        again = archive(self.place, run="1" * 12)
        page.type(SECOND, str(again))
        page.shows("Manifests, points and results are the same.")
        other = archive(self.place, run="2" * 12, more=1.0, images={"ann/x:latest": "2" * 64})
        page.type(SECOND, str(other))
        page.shows("differences", "table.differences")
        for text in ("image ann/x:latest\t1111",
                     "delay, median at MODE=fast SIZE=64\t2.14 (n=2)\t3.14"):
            page.shows(text, "table.differences")
        self.assertEqual(len(page.all("svg.plot rect")), 6)
        if os.environ.get("WALT_TEST_PICTURES"):
            page.run("document.querySelector('section:last-of-type').scrollIntoView()")
            page.picture(Path(os.environ["WALT_TEST_PICTURES"]) / "web-experiments.png")
        page.type(SECOND, str(archive(self.place, run="3" * 12, name=HOSTILE[0])))
        page.shows(f"experiment\tdelays\t{HOSTILE[0]}", "table.differences")

    def none(self, page: Browser, link: str) -> None:
        """Each says why; the page goes on."""
        for path, text in wrong_ones(self.good):
            page.go("/ui/experiments")
            page.shows("Experiments", "h1")
            page.type(FIRST, str(path))
            page.until(lambda: page.all("[role=alert]"), f"a word on {path.name}")
            self.assertRegex(page.text("[role=alert]"), text, path.name)
        page.type(FIRST, str(self.good))
        page.shows("12 points", "section")

    def odd(self, page: Browser, link: str) -> None:
        """Many numbers, many results, names that mean something to JavaScript, long ones."""
        with zipfile.ZipFile(self.good) as one:
            points = [json.loads(one.read(f"points/{number:05}.json")) for number in (1, 2, 3, 4)]
        points[0]["results"] = {"__proto__": [1, 2, 3], "many": [0] * 1_000_000 + [7]}
        points[1]["results"] = {f"r{number:03}": [number] for number in range(100)}
        for at, end in ((2, "x"), (3, "y")):
            points[at]["values"] = {"TEXT": "a" * 1000 + end}
            points[at]["results"] = {"long": [at]}
        path = rewritten(self.good, "odd.zip", {
            f"points/{one['number']:05}.json": json.dumps(one).encode() for one in points
        })
        page.go("/ui/experiments")
        page.shows("Experiments", "h1")
        page.type(FIRST, str(path))
        page.shows("and 54 more results")
        self.assertEqual(
            [one.text for one in page.all("figure h3")][:2], ["__proto__", "delay"]
        )
        page.shows("MODE=fast SIZE=64\t2 (n=1)", "figure:nth-of-type(1) table")
        page.shows("MODE=fast SIZE=64\t0 (n=1)", "figure:nth-of-type(4) table")
        rows = [one.text for one in page.all("figure:nth-of-type(3) table tbody th")]
        self.assertEqual(len(set(rows)), 2, rows)
