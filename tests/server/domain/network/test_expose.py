from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.services import FakeForwarder
from walt.common.errors import Conflict, Invalid
from walt.server.domain.network.expose import ExposedPorts, Forward, parse_expose

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


class ParseTests(SynchronousTestCase):
    def test_values(self) -> None:
        """`none`, or pairs of ports."""
        self.assertEqual(parse_expose("none"), ())
        self.assertEqual(parse_expose("80:8080,22:2222"), (Forward(80, 8080), Forward(22, 2222)))

    def test_refused(self) -> None:
        """Bad formats, ports out of range and repeated ports."""
        for text in ("", "80", "80:", "a:b", "80:8080,", "0:80", "80:65536", "80:1,80:2",
                     "80:1,81:1", "80:8080 ", "-1:80", "80:８０"):
            self.assertRaises(Invalid, parse_expose, text)

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text gives forwards that read back the same, or Invalid."""
        try:
            found = parse_expose(text)
        except Invalid:
            return
        self.assertEqual(parse_expose(",".join(map(str, found)) or "none"), found)


class ExposedPortsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.forwarder = FakeForwarder({9999})
        self.errors: list[str] = []
        self.exposed = ExposedPorts(self.forwarder, self.errors.append)

    def do(self, coroutine: object) -> None:
        self.successResultOf(Deferred.fromCoroutine(coroutine))  # type: ignore[arg-type]

    def test_change(self) -> None:
        """A change closes removed forwards and opens new ones."""
        self.do(self.exposed.apply(A, "10.0.0.1", parse_expose("80:8080,22:2222")))
        self.do(self.exposed.apply(A, "10.0.0.1", parse_expose("80:8080,23:2323")))
        self.assertEqual(
            self.forwarder.forwards, {8080: ("10.0.0.1", 80), 2323: ("10.0.0.1", 23)}
        )
        self.do(self.exposed.apply(A, "10.0.0.2", parse_expose("80:8080")))
        self.assertEqual(self.forwarder.forwards, {8080: ("10.0.0.2", 80)})

    def test_conflicts(self) -> None:
        """A port of another device or program is refused, one's own is not."""
        self.do(self.exposed.apply(A, "10.0.0.1", parse_expose("80:8080")))
        self.exposed.check(A, parse_expose("81:8080"))
        self.assertRaises(Conflict, self.exposed.check, B, parse_expose("80:8080"))
        self.assertRaises(Conflict, self.exposed.check, B, parse_expose("80:9999"))
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.exposed.apply(B, "10.0.0.3", parse_expose("80:9999,81:8181"))
            ), Conflict,
        )
        self.assertEqual(self.forwarder.forwards[8181], ("10.0.0.3", 81))

    def test_restore_and_forget(self) -> None:
        """A restore that fails gives a line; a forgotten device loses its forwards."""
        self.do(self.exposed.restore(A, "node-a", "10.0.0.1", "80:9999"))
        self.do(self.exposed.restore(B, "node-b", "10.0.0.2", "80:8080"))
        self.assertEqual(len(self.errors), 1)
        self.assertIn("node-a (80:9999)", self.errors[0])
        self.do(self.exposed.forget(B))
        self.assertEqual(self.forwarder.forwards, {})
        self.do(self.exposed.forget(B))

    def test_stop(self) -> None:
        """Stopping closes everything."""
        self.do(self.exposed.apply(A, "10.0.0.1", parse_expose("80:8080,22:2222")))
        self.do(self.exposed.stop())
        self.assertEqual(self.forwarder.forwards, {})
