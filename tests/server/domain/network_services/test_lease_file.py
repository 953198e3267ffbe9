from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.leases import Sighting
from walt.server.domain.network_services.lease_events import client_text
from walt.server.domain.network_services.lease_file import parse_leases

FILE = """\
# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;

lease 192.168.1.7 {
  starts 0 2026/11/22 12:00:00;
  ends never;
  binding state active;
  next binding state free;
  hardware ethernet 00:0c:01:02:03:04;
  uid "\\001\\000\\014\\001\\002\\003\\004";
  set vci = "walt.node.rpi-4-b";
  set uci = "";
  client-hostname "pi; } \\"x\\"";
}
lease 192.168.1.8 {
  binding state free;
  hardware ethernet 00:0c:01:02:03:05;
}
lease 192.168.1.7 {
  binding state active;
  hardware ethernet 00:0c:01:02:03:06;
}
server-duid "\\000\\001\\000";
lease 192.168.1.9 {
  binding state active;
  hardware ethernet 00:0c:01:02:03:0
"""


def quoted(raw: bytes) -> str:
    """Return a string as dhcpd writes it: octal escapes for all but plain characters."""
    return "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else
        f"\\{chr(b)}" if chr(b) in '"\\' else f"\\{b:03o}"
        for b in raw
    )


class LeaseFileTests(SynchronousTestCase):
    def test_latest_block_counts(self) -> None:
        """Of two blocks of one address the last one counts; a cut block is left out.

        So are leases that do not hold any more.
        """
        self.assertEqual(parse_leases(FILE), [Sighting("00:0c:01:02:03:06", "192.168.1.7")])
        given_back = "lease 192.168.1.7 {\n  binding state free;\n  hardware ethernet " \
            "00:0c:01:02:03:06;\n}\n"
        self.assertEqual(parse_leases(FILE[:FILE.index("server-duid")] + given_back), [])

    def test_fields(self) -> None:
        """What the client said is found, braces and quotes included."""
        text = FILE[:FILE.index("lease 192.168.1.8")]
        self.assertEqual(parse_leases(text), [Sighting(
            "00:0c:01:02:03:04", "192.168.1.7", "walt.node.rpi-4-b", "",
            'pi; } "x"-020304',
        )])

    @given(st.binary(max_size=255))
    def test_any_class_survives(self, raw: bytes) -> None:
        """Every byte string written as dhcpd does is read back."""
        text = (
            "lease 192.168.1.7 {\n  binding state active;\n"
            f'  hardware ethernet 00:0c:01:02:03:04;\n  set vci = "{quoted(raw)}";\n}}\n'
        )
        (lease,) = parse_leases(text)
        self.assertEqual(lease.vci, client_text(raw))

    @given(st.text(max_size=400))
    def test_garbage(self, text: str) -> None:
        """No content raises."""
        parse_leases(text)
        parse_leases("lease 192.168.1.7 {\n" + text + "\n}\n")
