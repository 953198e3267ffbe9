"""`make run` and `make stop`, as far as nothing is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.client.errors import Failure
from walt.server.config.load import parse
from walt.server.tools.quickstart import alone, reachable_by_all


class QuickstartTests(SynchronousTestCase):
    def test_one_at_a_time(self) -> None:
        """A second one is told, and changes nothing: the first one's pid stays on record."""
        place = Path(self.mktemp()).absolute()
        config = parse("network:\n  walt-net:\n    ip: 192.168.183.1/24\n")
        config = replace(config, paths=replace(config.paths, runtime=place))
        with alone(config):
            with self.assertRaises(Failure) as caught, alone(config):
                self.fail("two of them")
            self.assertIn("already", str(caught.exception))
        with alone(config):
            pass

    def test_whom_a_program_is_for(self) -> None:
        """Those who may enter every directory above it, and above what it is a link to."""
        place = Path(self.mktemp()).absolute()
        program, link = place / "private" / "walt", place / "link"
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        link.symlink_to(program)
        self.assertEqual(reachable_by_all(program), reachable_by_all(place / "private"))
        program.parent.chmod(0o700)
        self.assertFalse(reachable_by_all(program))
        self.assertFalse(reachable_by_all(link))
