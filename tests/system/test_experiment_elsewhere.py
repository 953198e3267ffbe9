"""A run that was recorded on one platform is done again on another one; what was planted there is
what differs.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

TEXT = """\
name: travels
licence: CC0-1.0
roles:
  left: {model: "pc-*", image: special}
  right: {model: "pc-*", image: plain}
links:
  - {between: [left, right], latency: 20ms}
variables:
  SIZE: [10, 20, 30]
measure:
  - left: {script: measure.sh}
    save: value
  - right: echo "$WALT_LEFT_IP"; ip link show eth1
results:
  value: {file: left/value, pattern: "is ([0-9.]+)"}
"""
# The file of the layer that is planted elsewhere has the script set the clock of its node.
MEASURE = """\
#!/bin/sh
if [ -s /etc/planted ] && [ "$WALT_POINT" = 1 ]; then
    date -s "@$(($(date +%s) + 3600))" > /dev/null
fi
echo "it is $SIZE.5" > value
"""


class ReplayTests(TestCase):
    skip = why_not()
    timeout = patient(580)

    async def platform(self, names: str, image: str, planted: str, net: str) -> LivePlatform:
        """Start a platform with two nodes, the small image by a name, and one with a file."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor, net=net)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.add_image("alice/special", {"/etc/planted": planted})
        await platform.start()
        await platform.ok("image", "clone", "walt:waltplatform/pc-x86-64-default", image)
        for name in names.split(","):
            await platform.ok("node", "create", name)
        await platform.ok("node", "wait", names)
        return platform

    async def damaged(self, there: LivePlatform, kept: Path, place: Path) -> None:
        """Images of an archive that somebody changed are refused before anything is touched."""
        unpacked = place / "unpacked"
        with zipfile.ZipFile(kept) as archive:
            archive.extractall(unpacked)
        (unpacked / "manifest-sha256.txt").unlink()
        file = unpacked / "images" / "oci.tar"
        with file.open("r+b") as images:
            images.seek(-20_000, 2)
            images.write(b"another content")
        before = await there.ok("image", "show", "--json")
        refused = await there.walt("experiment", "repeat", str(unpacked))
        self.assertEqual(refused.status, 1)
        self.assertIn(b"is refused: blobs/sha256/", refused.stderr)
        self.assertIn(b"another content than its name says", refused.stderr)
        self.assertEqual(await there.ok("image", "show", "--json"), before)

    async def test_elsewhere(self) -> None:
        """Images are found by their ids; what is missing is told before nodes are touched."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        (place / "travels.yaml").write_text(TEXT)
        (place / "measure.sh").write_text(MEASURE)
        here = await self.platform("vm1,vm2", "plain", "", "192.168.181")
        first, sealed = place / "first", place / "first.zip"
        told = await here.ok(
            "experiment", "run", "--to", str(first), str(place / "travels.yaml")
        )
        self.assertIn("point 3 of 3, SIZE=30 #1: done value=30.5", told)
        await here.ok("experiment", "seal", "--to", str(sealed), str(first))
        kept = place / "kept.zip"
        await here.ok("experiment", "seal", "--with-images", "--to", str(kept), str(first))
        told = await here.ok("experiment", "show", str(kept))
        self.assertEqual(
            sorted(line.split()[2] for line in told.splitlines() if "image kept" in line),
            ["plain", "special"],
        )
        await here.stop()

        there = await self.platform("east,west", "mine", "yes", "192.168.182")
        refused = await there.walt("experiment", "repeat", str(sealed))
        self.assertEqual(refused.status, 1)
        self.assertIn(b"missing: left: the image special (id ", refused.stderr)
        boots = json.loads(await there.ok("node", "boots", "--json", "east,west"))
        self.assertEqual(len(boots), 2)  # nothing was touched

        await there.ok("node", "config", "west", "boot.retries=3")
        edited, second = place / "edited", place / "second"
        shutil.copytree(first, edited)
        (edited / "experiment.yaml").write_text(
            TEXT.replace('echo "$', 'echo "to $').replace("20ms", "30ms")
        )
        told = await there.ok(
            "experiment", "replay", "--map", "left=west", "--to", str(second), str(edited)
        )
        self.assertIn("left: special of this platform is another image", told)
        self.assertIn("right: mine, the same image as plain", told)
        (second / "points" / "00002.json").unlink()
        found = await there.walt("experiment", "diff", "--json", str(sealed), str(second))
        self.assertEqual(found.status, 3, found.stderr)
        lines = json.loads(found.stdout)
        unexpected = [
            (line["category"], line["text"]) for line in lines if line["mark"] == "!"
        ]
        self.assertEqual([category for category, _ in unexpected], [
            "topology", "command", "image", "settings", "point", "clock",
        ], found.stdout)
        told = "\n".join(text for _, text in unexpected)
        for text in (
            "left - right: latency 20ms -> 30ms", "measure, step 2 of right:",
            "layer 2 of 2 differs", "left: boot_retries 9 -> 3",
            "2 (SIZE=20 #1) is in one archive alone", "left: set by 0 s -> 3",
        ):
            self.assertIn(text, told)
        self.assertIn("left: another node, vm1 -> west", [line["text"] for line in lines])
        manifest = json.loads((second / "manifest.json").read_text())
        self.assertEqual((manifest["map"], len(manifest["of"])), ({"left": ["west"]}, 12))
        await self.damaged(there, kept, place)
        await self.repeated(there, kept, place)

    async def repeated(self, there: LivePlatform, kept: Path, place: Path) -> None:
        """The very image comes out of the archive: it is nowhere else."""
        third = place / "third"
        told = await there.ok("experiment", "repeat", "--to", str(third), str(kept))
        self.assertIn("special-", told)
        self.assertIn(": out of the archive", told)
        images = [
            json.loads(text)["images"] for text in (
                zipfile.ZipFile(kept).read("manifest.json"),
                (third / "manifest.json").read_bytes(),
            )
        ]
        self.assertEqual(*(sorted(found.values()) for found in images))
        found = await there.walt("experiment", "diff", "--json", str(kept), str(third))
        lines = [
            (line["mark"], line["text"]) for line in json.loads(found.stdout)
            if line["category"] == "image"
        ]
        self.assertEqual([mark for mark, _ in lines], ["~", "="], lines)
        tables = json.loads(await there.ok("image", "show", "--json"))
        names = [row["name"] for row in tables["own"]]
        self.assertEqual([name for name in names if name.startswith(("fetch-", "run-"))], [])
