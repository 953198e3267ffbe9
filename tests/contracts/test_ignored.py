"""What the client leaves out of a directory to be built is what podman leaves out."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.storage import TestStorage, why_not
from walt.client.operations.archives import pack
from walt.client.operations.ignored import ignored_in

FILES = (
    "a", "b.log", "dir/a", "dir/b.log", "dir/deep/a", "dir/deep/b.log", "other/a", "other/keep",
    "node_modules/x/y", "sp ace", "[x]", "x", "dir/x", ".hidden", "dir/.hidden", "#a", "!a",
)
RULES = (
    "*.log\n", "**/*.log\n", "dir\n", "/dir\n", "dir/\n", "dir/*\n", "dir/**\n", "*\n!a\n",
    "other\n!other/keep\n", "*\n!dir/deep\n", "# a\n\n  a  \n", "**/a\n!dir/a\n",
    "d?r/a\n", "[ab]\n", "[^a]\n", "sp ace\n", "\\[x\\]\n", "./dir/../a\n", "dir/deep\n!dir\n",
    "**/.hidden\n", "*/a\n", "dir/**/a\n", "!a\na\n", "\\#a\n\\!a\n", "*/*/a\n", "**/deep/**\n",
    "Dockerfile\n.dockerignore\n", "**\n!**/a\n", "node_modules/x/y/z\n", "*.l[a-p]g\n",
)


def sent(context: Path) -> set[str]:
    """Return the files of the archive that the client makes."""
    stream = io.BytesIO()
    pack(str(context), None, stream, lambda text: None, ignored_in(str(context)))
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        return {one.name.removeprefix("./") for one in archive if one.isreg()}


class IgnoredTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_as_podman(self) -> None:
        """The same files for all rules; what the builder needs is sent in any case."""
        from twisted.internet import reactor

        place = TestStorage(reactor)
        self.addCleanup(place.close)
        context, recipe = place.base / "context", place.base / "recipe"
        recipe.write_text("FROM scratch\nCOPY . /\n")
        for name in FILES:
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_text("x")
        for number, rules in enumerate(RULES):
            (context / ".dockerignore").write_text(rules)
            made = place.base / f"made-{number}"
            await place.podman(
                "build", "--quiet", "--file", str(recipe),
                "--output", f"type=local,dest={made}", str(context), network="host",
            )
            expected = {
                str(Path(top, name).relative_to(made)) for top, _, names in os.walk(made)
                for name in names
            }
            there = sent(context)
            self.assertIn(".dockerignore", there)
            there.remove(".dockerignore")
            expected.discard(".dockerignore")
            self.assertEqual(expected - there, set(), rules)
            # podman looks into directories for some exceptions only: it may build with less.
            if "!**" not in rules:
                self.assertEqual(there, expected, rules)
