"""What others do to a run: they want its nodes, and remove its image."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

TEXT = """\
name: wanted
roles:
  left: {model: "pc-*", image: mine}
measure:
  - left: sleep 12; echo "it is 5" > value
    save: value
results:
  value: {file: left/value, pattern: "is ([0-9.]+)"}
"""


PROGRAM = """\
import sys
from walt.client import experiment
with experiment.Run(
    "program", roles={"left": {"model": "pc-*"}}, variables={"N": [1, 2]}, to=sys.argv[1],
) as run:
    run.do("left", "mkdir /root/made")
    for point in run.points():
        with point:
            told = point.do("left", 'ls -d /root/made; echo "$N" | tee out', save="out")
            assert point.file("left", "out").read_text() == point.values["N"] + "\\n"
            (text,) = told.values()
            point.result("n", float(text.split()[-1]))
"""


class FaultTests(TestCase):
    skip = why_not()
    timeout = patient(560)

    async def test_others(self) -> None:
        """Reserved nodes are not taken, not by force; an image may go; of two, one runs.

        At last a program has the node.
        """
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        file, first = place / "wanted.yaml", place / "first"
        file.write_text(TEXT)
        await platform.ok("node", "create", "vm1")
        await platform.ok("node", "wait", "vm1")
        await platform.ok("image", "clone", "walt:waltplatform/pc-x86-64-default", "mine")
        running = ensureDeferred(platform.walt("experiment", "run", "--to", str(first), str(file)))

        async def is_measured() -> bool:
            point = first / "points" / "00001.json"
            return point.exists() and '"begun"' in point.read_text()

        await platform.until(is_measured, "a point is begun", 180)
        shown = json.loads(await platform.ok("experiment", "show", "--json", user="bob"))
        self.assertEqual(
            [(row["user"], row["name"], row["nodes"], row["goes_on"], row["points"])
             for row in shown], [("alice", "wanted", ["vm1"], True, 1)],
        )
        self.assertNotIn("sleep", json.dumps(shown))
        table = await platform.ok("experiment", "show", user="bob")
        self.assertIn("0 of 1", table)
        await platform.ok("image", "remove", "mine")
        default = place / "default.yaml"
        default.write_text(TEXT.replace(", image: mine", ""))
        for user in ("alice", "bob"):
            refused = await platform.walt("experiment", "run", "--force", str(default), user=user)
            self.assertEqual(refused.status, 1)
            self.assertIn(b"reserved by a program that runs: vm1", refused.stderr)
        ended = await running
        self.assertEqual(ended.status, 0, ended.stderr + ended.stdout)
        (shown,) = json.loads(await platform.ok("experiment", "show", "--json"))
        self.assertEqual(
            (shown["state"], shown["goes_on"], shown["point"], shown["failed"]),
            ("done", False, 1, 0),
        )
        self.assertIn(b"mine was removed: it is run-", ended.stdout)
        manifest = json.loads((first / "manifest.json").read_text())
        self.assertEqual(list(manifest["images"]), ["alice/mine:latest"])

        default.write_text(default.read_text().replace("sleep 12", "sleep 3"))
        found = await gatherResults([
            ensureDeferred(platform.walt(
                "experiment", "run", "--to", str(place / name), str(default)
            )) for name in ("one", "two")
        ])
        told = "".join((one.stdout + one.stderr).decode() for one in found)
        self.assertEqual(sorted(one.status for one in found), [0, 1], told)
        self.assertIn("can be had now" if "can be had" in told else "reserved by a program", told)
        program, place = place / "go.py", place / "program"
        program.write_text(PROGRAM)
        await platform.runner.run(
            [sys.executable, str(program), str(place)], env=platform.environment(),
            timeout=patient(200),
        )
        shown = await platform.ok("experiment", "show", str(place))
        self.assertIn("program, run ", shown)
        self.assertIn("N=2  ####", shown)
        row = json.loads(await platform.ok("node", "show", "--all", "--json"))
        self.assertIn("waltplatform/pc-x86-64-default", json.dumps(row))  # free again
