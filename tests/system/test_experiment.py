"""An experiment on real nodes: planned, run, interrupted, gone on with, sealed, compared."""

from __future__ import annotations

import json
import signal
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from walt.client.commands.experiment import EXAMPLE

# Each run of a command leaves a line in a file of the node, which tells how often it ran.
COUNTED = """\
name: counted
licence: CC0-1.0
roles:
  left: {model: "pc-*", image: pc-x86-64-small}
  right: {model: "pc-*", image: pc-x86-64-small}
variables:
  SIZE: [10, 20]
setup:
  - all: {script: prepare.sh}
measure:
  - right: echo listening; sleep 600
    start: yes
    ready: listening
  - left: {script: measure.sh}
    save: value
    timeout: 2m
  - all: echo "$WALT_ROLE $WALT_POINT"
results:
  value: {file: left/value, pattern: "is ([0-9.]+)", tolerance: 10%}
logs: {streams: mark}
"""
PREPARE = "#!/bin/sh\r\nmkdir -p /root/runs\r\n"
MEASURE = """\
#!/bin/sh
echo "$WALT_POINT" >> /root/runs/ran
walt-log-echo mark "point $WALT_POINT of $WALT_RIGHT_NAMES"
if [ -e /root/slow ]; then sleep 15; fi
echo "it is $SIZE.5" > value
"""


class ExperimentTests(TestCase):
    skip = why_not()
    timeout = patient(560)

    async def test_from_the_file_to_the_difference(self) -> None:
        """Two nodes; the server is killed within a point; what was planted is what differs."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        place = platform.base / "experiment"
        place.mkdir()
        file, first, second = place / "counted.yaml", place / "first", place / "second"
        file.write_text(COUNTED)
        (place / "prepare.sh").write_bytes(PREPARE.encode())
        (place / "measure.sh").write_text(MEASURE)

        missing = await platform.walt("experiment", "plan", str(file))
        self.assertEqual((missing.status, missing.stderr), (1, b""))
        self.assertIn("missing: left: 1 more pc-* of 1", missing.stdout.decode())
        for name in ("vm1", "vm2"):
            await platform.ok("node", "create", name)
        await platform.ok("node", "wait", "vm1,vm2")
        plan = json.loads(await platform.ok("experiment", "plan", "--json", str(file)))
        self.assertEqual(
            (plan["roles"], plan["points"], plan["missing"], plan["disturbed"]),
            ({"left": ["vm1"], "right": ["vm2"]}, 2, [], []),
        )
        (place / "wrong.yaml").write_text(COUNTED.replace("image: pc-x86-64-small", "image: no"))
        wrong = await platform.walt("experiment", "run", str(place / "wrong.yaml"))
        self.assertIn(b"missing: left: an image no of yours", wrong.stderr)
        await platform.ok("image", "show", user="bob")  # he gets copies of default images
        other = await platform.walt("experiment", "run", str(file), user="bob")
        self.assertEqual(other.status, 1, other.stdout)
        self.assertIn(b"disturbs: vm1: pc-x86-64, alice's", other.stdout)

        told = await platform.ok("experiment", "run", "--to", str(first), str(file))
        self.assertIn("point 2 of 2, SIZE=20 #1: done value=20.5", told)
        ran = await platform.ok("node", "run", "vm1", "--", "cat", "/root/runs/ran")
        self.assertEqual(ran, "1\n2\n")
        images = json.loads(await platform.ok("image", "show", "--json"))
        self.assertNotIn("run-", json.dumps(images))  # what it held is given back
        clocks = json.loads((first / "clocks.json").read_text())
        for name in ("vm1", "vm2"):
            samples = clocks["nodes"][name]
            self.assertGreaterEqual(len(samples), 2)
            self.assertTrue(all(0 < error < 0.5 for _, _, error in samples), samples)
        again = await platform.walt("experiment", "run", "--to", str(first), str(file))
        self.assertIn(b"experiment resume", again.stderr)

        await self.killed_within_a_point(platform, place)

        (place / "measure.sh").write_text(MEASURE.replace("$SIZE.5", "${SIZE}7"))
        await platform.ok("experiment", "run", "--to", str(second), str(file))
        sealed = place / "first.zip"
        await platform.ok("experiment", "seal", "--to", str(sealed), str(first))
        found = await platform.walt("experiment", "diff", "--json", str(sealed), str(second))
        self.assertEqual(found.status, 3, found.stderr)
        unexpected = [
            (line["category"], line["text"].split(",")[0]) for line in json.loads(found.stdout)
            if line["mark"] == "!"
        ]
        self.assertEqual(unexpected, [
            ("definition", "scripts/measure.sh differs"),
            ("result", "value SIZE=10: 10.5 (n=1) -> 107 (n=1)"),
            ("result", "value SIZE=20: 20.5 (n=1) -> 207 (n=1)"),
        ])
        same = await platform.ok("experiment", "diff", str(sealed), str(first))
        self.assertEqual(same.splitlines()[-1], "= nothing differs")
        await platform.ok("image", "duplicate", "pc-x86-64-small", "other")
        (place / "measure.sh").unlink()
        fourth = place / "fourth"
        await platform.ok("experiment", "repeat", "--to", str(fourth), str(sealed))
        self.assertEqual(
            [line for line in (await platform.ok(
                "experiment", "diff", str(sealed), str(fourth)
            )).splitlines() if line.startswith("!")], [],
        )
        shown = await platform.ok("experiment", "show", str(sealed))
        self.assertIn("SIZE=20  ######", shown)

    async def killed_within_a_point(self, platform: LivePlatform, place: Any) -> None:
        """The server is killed while a command runs, and with it the nodes that it emulates.

        What is not known is not repeated; what follows is set up again, and measured.
        """
        third = place / "third"
        text = COUNTED.replace("measure.sh}", "slow.sh}").replace(
            """  - right: echo listening; sleep 600
    start: yes
    ready: listening
""", "")
        (place / "third.yaml").write_text(text)
        (place / "slow.sh").write_text(MEASURE.replace("[ -e /root/slow ]", "true"))
        running = ensureDeferred(
            platform.walt("experiment", "run", "--to", str(third), str(place / "third.yaml"))
        )
        point = third / "points" / "00001.json"

        async def is_begun() -> bool:
            return point.exists() and '"begun"' in point.read_text()

        await platform.until(is_begun, "a point is begun", 120)
        await platform.sleep(2)
        platform.expects("the server was killed")
        await platform.stop(signal.SIGKILL)
        await platform.start()
        ended = await running
        self.assertEqual(ended.status, 1, ended.stderr + ended.stdout)
        outcomes = [
            json.loads((third / "points" / f"0000{number}.json").read_text())["outcome"]
            for number in (1, 2)
        ]
        self.assertEqual(outcomes, ["unknown", "done"], ended.stdout)
        ran = await platform.ok("node", "run", "vm1", "--", "cat", "/root/runs/ran")
        self.assertEqual(ran, "2\n")
        again = await platform.walt("experiment", "resume", str(third))
        self.assertEqual(again.status, 1, again.stderr + again.stdout)
        self.assertEqual(
            await platform.ok("node", "run", "vm1", "--", "cat", "/root/runs/ran"), "2\n"
        )
        told = await platform.ok("experiment", "resume", "--failed", str(third))
        self.assertIn("point 1 of 2", told)
        self.assertNotIn("point 2 of 2", told)
        self.assertEqual(
            await platform.ok("node", "run", "vm1", "--", "cat", "/root/runs/ran"), "1\n"
        )

    def test_the_example(self) -> None:
        """It is one."""
        from walt.client.experiment.document import Errors
        from walt.client.experiment.reading import parsed

        errors = Errors()
        experiment = parsed(EXAMPLE, errors)
        self.assertEqual(errors, [])
        assert experiment is not None
        self.assertEqual(len(experiment.points()), 6)
