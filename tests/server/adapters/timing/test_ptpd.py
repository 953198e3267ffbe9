from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.processes import ProcessClock
from walt.server.adapters.timing.ptpd import STATUS, PtpdService
from walt.server.domain.network_services.timing import PtpConfig
from walt.server.runtime.process import Launcher

STATE = "Host info : x, PID 2\nPort state         :  PTP_{}\n"


class PatienceTests(SynchronousTestCase):
    """A machine that is busy: the program comes late, then listens for other masters."""

    def setUp(self) -> None:
        self.clock, run = ProcessClock(), Path(self.mktemp())
        self.ptpd = PtpdService(
            self.clock, Launcher(), directory=Path(self.mktemp()), runtime=run
        )
        self.status = run / STATUS
        self.ptpd.startService()
        self.ptpd.apply(PtpConfig("eth1", self.status))

    def run_for(self, seconds: int) -> None:
        """Let the time pass; who is told to end ends."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            process = self.clock.processes[-1]
            if process.pid is not None and process.signals:
                process.end(signal=15)

    def test_it_listens_first(self) -> None:
        """It is given the time to become a master; nothing is told."""
        self.run_for(45)
        self.status.write_text(STATE.format("LISTENING"))
        self.run_for(40)
        self.status.write_text(STATE.format("MASTER"))
        self.run_for(30)
        self.assertEqual(len(self.clock.processes), 1)
        self.assertEqual(self.ptpd.health.state, "running")
        self.assertIsNone(self.ptpd.health.trouble)

    def test_it_listens_for_ever(self) -> None:
        """One that becomes none is started anew."""
        self.status.write_text(STATE.format("LISTENING"))
        self.run_for(130)
        self.assertGreater(len(self.clock.processes), 1)
        self.assertEqual(self.ptpd.health.trouble, "it is no master: PTP_LISTENING")
