from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.network_services.pacing import Pacer


class PacerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[float] = []
        self.acts: list[float] = []
        self.running: list[Deferred[None]] = []
        self.pacer = Pacer(
            self.clock, lambda: self.written.append(round(self.clock.seconds(), 1)), self.act
        )
        self.pacer.started()

    def act(self) -> Deferred[None]:
        self.acts.append(round(self.clock.seconds(), 1))
        self.running.append(Deferred())
        return self.running[-1]

    def go(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))

    def test_written_soon_restarted_at_pace(self) -> None:
        """The file is written within 0.2 s; the restart comes 5 s after the last one."""
        done = self.pacer.changed()
        self.go(0.2)
        self.assertEqual(len(self.written), 1)
        self.assertEqual(self.acts, [])
        self.go(4.9)
        self.assertEqual([round(one) for one in self.acts], [5])
        self.assertNoResult(done)
        self.running[0].callback(None)
        self.successResultOf(done)

    def test_merged_and_one_at_a_time(self) -> None:
        """Changes during a restart make one more, 5 s after its end."""
        self.go(10)
        first = self.pacer.changed()
        self.go(1)
        later = [self.pacer.changed() for _ in range(50)]
        self.go(20)
        self.assertEqual(len(self.acts), 1)
        self.assertEqual(len(self.written), 2)
        self.running[0].callback(None)
        self.successResultOf(first)
        self.assertNoResult(later[0])
        self.go(6)
        self.assertEqual(len(self.acts), 2)
        self.running[1].callback(None)
        for one in later:
            self.successResultOf(one)
        self.go(60)
        self.assertEqual(len(self.acts), 2)
        self.assertFalse(self.pacer.pending)

    def test_calm_change_waits_for_silence(self) -> None:
        """A calm change waits for 2 s without lease event."""
        self.go(20)
        self.pacer.changed(calm=True)
        for _ in range(8):
            self.go(1)
            self.pacer.activity()
        self.assertEqual(self.acts, [])
        self.go(2.2)
        self.assertEqual(len(self.acts), 1)

    def test_calm_change_waits_30_seconds_at_most(self) -> None:
        """Events without end delay a calm change by 30 s."""
        self.go(20)
        start = self.clock.seconds()
        self.pacer.changed(calm=True)
        while not self.acts:
            self.go(0.5)
            self.pacer.activity()
            self.pacer.changed(calm=True)
        self.assertAlmostEqual(self.acts[0] - start, 30, delta=0.6)

    def test_urgent_change_does_not_wait_for_silence(self) -> None:
        """A node or a person's change goes at the pace of 5 s, and takes calm ones along."""
        self.go(20)
        calm = self.pacer.changed(calm=True)
        self.go(0.5)
        self.pacer.activity()
        self.pacer.changed()
        self.go(0.3)
        self.assertEqual(len(self.acts), 1)
        self.running[0].callback(None)
        self.successResultOf(calm)

    def test_failed_write_is_tried_again(self) -> None:
        """Without room on the disk nothing is restarted; the write is tried each second."""
        broken = [True]

        def write() -> None:
            if broken[0]:
                raise OSError(28, "No space left on device")

        pacer = Pacer(self.clock, write, self.act)
        pacer.changed()
        self.go(5)
        self.assertEqual(self.acts, [])
        self.assertTrue(self.flushLoggedErrors(OSError))
        broken[0] = False
        self.go(2)
        self.assertEqual(len(self.acts), 1)
        pacer.stop()

    def test_failed_restart_is_logged(self) -> None:
        """A restart that fails releases who waits and does not stop the pacer."""
        pacer = Pacer(self.clock, lambda: None, lambda: fail(RuntimeError("no")))
        done = pacer.changed()
        self.go(1)
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_hold(self) -> None:
        """Nothing is done while the daemon is starting."""
        self.go(20)
        starting: Deferred[None] = Deferred()
        self.pacer.hold(starting)
        self.pacer.changed()
        self.go(10)
        self.assertEqual(self.acts, [])
        starting.callback(None)
        self.go(6)
        self.assertEqual(len(self.acts), 1)

    def test_stop_leaves_nothing(self) -> None:
        """After stop no call is scheduled and nobody waits."""
        done = self.pacer.changed()
        self.pacer.stop()
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])
