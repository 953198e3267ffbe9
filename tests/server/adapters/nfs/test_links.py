"""The tree of links on a disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.nfs.exports import Directory
from walt.server.adapters.nfs.links import LinkTree

MANY = 300


class LinkTreeTests(SynchronousTestCase):
    def test_former_links(self) -> None:
        """Links of a former server that are right are looked at, a directory at each step."""
        wanted = {"": {}, **{f"n{number}": Directory(number, None) for number in range(MANY)}}
        with tempfile.TemporaryDirectory() as place:
            list(LinkTree(Path(place)).apply(wanted))
            links = [Path(place) / name / "fs" for name in wanted if name]
            made = [link.lstat().st_ino for link in links]
            steps = len(list(LinkTree(Path(place)).apply(wanted)))
            self.assertGreaterEqual(steps, 2 * MANY)  # read, and compared
            self.assertEqual([link.lstat().st_ino for link in links], made)


class DirectoryTests(SynchronousTestCase):
    def test_as_mapping(self) -> None:
        """It is what a dict of the same links is."""
        for image, persist in ((None, None), (3, None), (None, 4), (3, 4)):
            links = {"fs": image, "persist": persist}
            wanted = {
                name: f"../../exports/{number}" for name, number in links.items()
                if number is not None
            }
            found = Directory(image, persist)
            self.assertEqual(found, wanted)
            self.assertEqual(len(found), len(wanted))
            self.assertEqual(dict(found), wanted)
            self.assertEqual(found.get("tftp"), None)
