"""What clients of PTP say, and what they might say."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.experiment.ptp import question, state_of

PTP4L = """\
sending: GET CURRENT_DATA_SET
\t16a960.fffe.40a443-0 seq 0 RESPONSE MANAGEMENT CURRENT_DATA_SET
\t\tstepsRemoved     1
\t\toffsetFromMaster -154.0
\t\tmeanPathDelay    2274.0
\t16a960.fffe.40a443-1 seq 1 RESPONSE MANAGEMENT PORT_DATA_SET
\t\tportState               SLAVE
\t16a960.fffe.40a443-0 seq 2 RESPONSE MANAGEMENT TIME_STATUS_NP
\t\tgmIdentity                 a6e335.fffe.787110
"""
PTPD = """\
Port state         :  PTP_SLAVE
Best master ID     :  a6e335fffe787110(unknown)/1
Offset from Master : -0.000000654 s
Mean Path Delay    :  0.000001922 s
"""


class PtpTests(SynchronousTestCase):
    def test_states(self) -> None:
        """Both tell the same, in units of their own."""
        self.assertEqual(state_of(PTP4L), {
            "client": "ptp4l", "state": "slave", "master": "a6e335.fffe.787110",
            "offset": -1.54e-7, "delay": 2.274e-6,
        })
        self.assertEqual(state_of(PTPD), {
            "client": "ptpd", "state": "slave", "master": "a6e335fffe787110",
            "offset": -6.54e-7, "delay": 1.922e-6,
        })
        self.assertEqual(state_of("Port state         :  PTP_LISTENING\n"),
                         {"client": "ptpd", "state": "listening"})
        self.assertIsNone(state_of("sending: GET CURRENT_DATA_SET\n"))
        self.assertEqual(state_of(PTP4L.replace("2274.0", "2.2.7")), {
            "client": "ptp4l", "state": "slave", "master": "a6e335.fffe.787110",
            "offset": -1.54e-7,
        })

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """It is a state, or none."""
        state_of(text)
        state_of(PTP4L + text)

    def test_without_any(self) -> None:
        """A node without a client says nothing."""
        for shell in (["sh"], ["busybox", "sh"]):
            found = subprocess.run(
                [*shell, "-c", question("/nowhere", ["/nowhere"], ["/nowhere"])],
                capture_output=True, check=True, timeout=60,
            )
            self.assertEqual((found.stdout, found.stderr), (b"", b""))
