from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.network_services.timing import (
    ClockState,
    is_ntp_answer,
    ntp_answer,
    ntp_question,
)

KEPT = ClockState(0, 0.5)
# 2026-01-01 00:00:00.5 UTC in the era of NTP, seconds and fractions (RFC 5905 §6).
TIME, SECONDS, HALF = 1767225600.5, 3976214400, 1 << 31


class NtpTests(SynchronousTestCase):
    def test_answer(self) -> None:
        """Fields are where RFC 5905 has them."""
        answer = ntp_answer(ntp_question(0x0102030405060708), TIME, TIME + 0.25, KEPT)
        assert answer is not None
        self.assertEqual(len(answer), 48)
        self.assertEqual(answer[0], 0o44)  # no leap second, version 4, server
        self.assertEqual(answer[1], 10)
        self.assertEqual(struct.unpack("!I", answer[8:12]), (1 << 15,))  # half a second
        self.assertEqual(answer[24:32], bytes(range(1, 9)))
        self.assertEqual(struct.unpack("!II", answer[32:40]), (SECONDS, HALF))
        self.assertEqual(struct.unpack("!II", answer[40:48]), (SECONDS, HALF + (1 << 30)))
        self.assertTrue(is_ntp_answer(answer, 0x0102030405060708))
        self.assertFalse(is_ntp_answer(answer, 7))

    def test_a_clock_that_nobody_keeps(self) -> None:
        """Its error is the largest one; leap seconds are passed on."""
        answer = ntp_answer(ntp_question(1), TIME, TIME, ClockState(0, None))
        assert answer is not None
        self.assertEqual(struct.unpack("!I", answer[8:12]), (16 << 16,))
        answer = ntp_answer(ntp_question(1), TIME, TIME, ClockState(2, 0.0))
        assert answer is not None
        self.assertEqual(answer[0] >> 6, 2)

    def test_other_modes(self) -> None:
        """Servers, peers and control messages get no answer: two servers never talk."""
        question = ntp_question(1)
        for mode in (0, 1, 2, 4, 5, 6, 7):
            self.assertIsNone(
                ntp_answer(bytes([4 << 3 | mode]) + question[1:], TIME, TIME, KEPT)
            )
        for version in (0, 5, 7):
            self.assertIsNone(
                ntp_answer(bytes([version << 3 | 3]) + question[1:], TIME, TIME, KEPT)
            )

    @given(st.binary(max_size=200), st.floats(0, 2**33), st.floats(0, 2**33))
    def test_any_datagram(self, data: bytes, received: float, now: float) -> None:
        """An answer is never longer than the question, and asks nothing itself."""
        answer = ntp_answer(data, received, now, KEPT)
        is_ntp_answer(data, 1)
        if answer is not None:
            self.assertLessEqual(len(answer), len(data))
            self.assertIsNone(ntp_answer(answer, received, now, KEPT))
            self.assertTrue(is_ntp_answer(answer, int.from_bytes(data[40:48], "big")))
