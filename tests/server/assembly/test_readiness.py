"""When a server says that it is ready."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Unavailable
from walt.server.assembly.readiness import Essential, until_answering
from walt.server.runtime.kept import Health


class Daemon:
    """One that answers after some questions."""

    def __init__(self, name: str, silent: int, trouble: str | None = None) -> None:
        self.silent = silent
        self.health = Health(name, True, 1, 0, None, None, "running", trouble)

    def answered(self) -> Deferred[bool]:
        self.silent -= 1
        return succeed(self.silent < 0)

    def essential(self) -> Essential:
        return Essential(self.answered, lambda: self.health, 10.0 if self.silent else 1.0)


class ReadinessTests(SynchronousTestCase):
    def wait(self, clock: Clock, *daemons: Daemon) -> Deferred[None]:
        return Deferred.fromCoroutine(
            until_answering(clock, [one.essential() for one in daemons])
        )

    def test_all(self) -> None:
        """Ready when each one has answered, those who have are not asked again."""
        clock, quick, slow = Clock(), Daemon("named", 0), Daemon("dhcpd", 2)
        waiting = self.wait(clock, quick, slow)
        self.assertNoResult(waiting)
        clock.advance(1)
        self.assertNoResult(waiting)
        clock.advance(1)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(quick.silent, -1)

    def test_failure(self) -> None:
        """Who does not answer in time is told with its trouble, all of them at once."""
        clock = Clock()
        waiting = self.wait(
            clock, Daemon("named", 0), Daemon("dhcpd", 99, "port 67 is in use"),
            Daemon("tftpd", 99),
        )
        clock.pump([1.0] * 11)
        text = str(self.failureResultOf(waiting, Unavailable).value)
        self.assertIn("dhcpd does not work: port 67 is in use\ntftpd does not answer", text)
        self.assertNotIn("named", text)
