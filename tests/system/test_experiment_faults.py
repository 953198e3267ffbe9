"""What others do to a run: they want its nodes, and remove its image."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.places import ON_DISK
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


COUNTED = """\
name: counted
roles:
  left: {model: "pc-*", image: mine}
repetitions: 2
measure:
  - left: echo "$WALT_REPETITION" >> /root/ran; sleep 6; echo "it is 5" > value
    save: value
results:
  value: {file: left/value, pattern: "is ([0-9.]+)"}
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
            [(row["user"], row["name"], row["nodes"], row["active"], row["points"])
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
            (shown["state"], shown["active"], shown["point"], shown["failed"]),
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

    async def test_people(self) -> None:
        """Ctrl-C once, and twice: the run goes on later, and nothing runs twice. Two people replay
        one archive at the same time, with an image that one of them has.
        """
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        place = Path(tempfile.mkdtemp(dir=ON_DISK))
        self.addCleanup(shutil.rmtree, place)
        file = place / "counted.yaml"
        file.write_text(COUNTED)
        await platform.ok("node", "create", "vm1")
        await platform.ok("node", "create", "vm2", user="bob")
        await platform.ok("node", "wait", "vm1,vm2")
        await platform.ok("image", "clone", "walt:waltplatform/pc-x86-64-default", "mine")
        await platform.add_image("alice/mine", {"/etc/special": "x"})
        for often in (1, 2):
            folder = place / f"interrupted-{often}"
            await self.interrupted(platform, file, folder, often)
            await platform.ok("experiment", "resume", str(folder))
            ran = await platform.ok("node", "run", "vm1", "--", "cat", "/root/ran")
            self.assertEqual(ran, "1\n2\n")
        sealed = place / "sealed.zip"
        await platform.ok("experiment", "seal", "--to", str(sealed), str(folder))
        self.assertIn("image kept: mine (id ", await platform.ok("experiment", "show", str(sealed)))
        ended = await gatherResults([
            ensureDeferred(platform.walt(
                "experiment", "replay", "--map", f"left={node}", "--to", str(place / user),
                str(sealed), user=user,
            )) for user, node in (("alice", "vm1"), ("bob", "vm2"))
        ])
        for one in ended:
            self.assertEqual(one.status, 0, one.stderr + one.stdout)
        self.assertIn(b"mine: cloned from walt:alice/mine", ended[1].stdout)
        same = await platform.walt("experiment", "diff", str(place / "alice"), str(place / "bob"))
        self.assertNotIn(b"! image", same.stdout)

    async def interrupted(
        self, platform: LivePlatform, file: Path, folder: Path, often: int
    ) -> None:
        """Run, and interrupt that within its first point."""
        running = subprocess.Popen(
            [sys.executable, "-m", "walt.client.main", "experiment", "run", "--with-images", "--to",
             str(folder), str(file)],
            env={**os.environ, **platform.environment()}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        point = folder / "points" / "00001.json"

        async def is_measured() -> bool:
            return point.exists() and '"begun"' in point.read_text()

        async def is_over() -> bool:
            return running.poll() is not None

        await platform.until(is_measured, "a point is begun", 180)
        await platform.sleep(1)
        for _ in range(often):
            running.send_signal(signal.SIGINT)
            await platform.sleep(0.05)
        await platform.until(is_over, "the command ends", 60)
        _, errors = running.communicate()
        # The second one may end Python itself: shells call both 130.
        self.assertIn(running.returncode, (130, -signal.SIGINT), errors)
        self.assertNotIn(b"Traceback", errors)
        self.assertIn(f"walt experiment resume {folder}".encode(), errors)
        shown = json.loads(await platform.ok("experiment", "show", "--json"))
        self.assertFalse([row for row in shown if row["state"] == "done" and row["active"]])
