"""`make run` and `make stop`, as far as nothing is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.client.errors import Failure
from walt.server.config.load import DEFAULT_FILE, parse
from walt.server.tools.quickstart import alone, reachable_by_all, started_with


class QuickstartTests(SynchronousTestCase):
    def test_one_at_a_time(self) -> None:
        """A second one is told, and changes nothing: the first one's pid stays on record."""
        place = Path(self.mktemp()).absolute()
        config = parse("network:\n  walt-net:\n    ip: 192.168.183.1/24\n")
        config = config._replace(paths=config.paths._replace(runtime=place))
        with alone(config):
            with self.assertRaises(Failure) as caught, alone(config):
                self.fail("two of them")
            self.assertIn("already", str(caught.exception))
        with alone(config):
            pass

    def test_configuration_of_a_server(self) -> None:
        """What a server that runs was started with."""
        for words, file in (
            (("walt-server", "--config", "/srv/other.conf"), Path("/srv/other.conf")),
            (("walt-server",), DEFAULT_FILE),
        ):
            program = subprocess.Popen(
                [sys.executable, "-c", "print(flush=True); input()", *words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            assert program.stdout is not None
            program.stdout.readline()  # it runs
            self.assertEqual(started_with(program.pid), file)
            program.communicate(b"\n")

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
