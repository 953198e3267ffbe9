"""Typed arguments: what they write they read; wrong values are INVALID."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.rpc.arguments import Float, Integer, IPAddress, Json, Mac, Names, Text
from walt.rpc.commands.devices import RegisterDevice
from walt.rpc.commands.nodes import RebootNodes
from walt.rpc.commands.session import Hello

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63 - 1), 2**63 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


class ArgumentTests(SynchronousTestCase):
    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
    def test_text(self, value: str) -> None:
        """Any text without NUL."""
        text = Text()
        self.assertEqual(text.fromString(text.toString(value)), value)

    @given(PLAIN)
    def test_json(self, value: object) -> None:
        """Any plain value."""
        json = Json()
        self.assertEqual(json.fromString(json.toString(value)), value)

    @given(st.binary(max_size=60))
    def test_garbage_is_invalid(self, data: bytes) -> None:
        """Any bytes give a value or Invalid, nothing else."""
        for argument in (Text(10), Json(), Names(), Mac(), IPAddress(), Integer(), Float()):
            try:
                argument.fromString(data)
            except (Invalid, ValueError):  # what parseArguments expects
                pass

    def test_refused(self) -> None:
        """Limits and forms."""
        for argument, data in (
            (Text(3), b"abcd"), (Text(), b"a\0b"), (Text(), b"\xff"), (Json(), b"{"),
            (Json(), b"[" * 100_000), (Names(), b'"a"'), (Names(), b"[1]"),
            (Mac(), b"52:54:00"), (IPAddress(), b"::1"), (IPAddress(), b"1.2.3"),
            (IPAddress(), b"01.2.3.4"), (Json(), b"9" * 30), (Json(), b"9" * 5000),
            (Json(), b"1e999"), (Json(), b"NaN"), (Json(), b"-Infinity"), (Integer(), b"9" * 20),
            (Integer(), b"1" + b"0" * 400), (Integer(), b"9" * 5000), (Float(), b"nan"),
            (Float(), b"-inf"), (Float(), b"1e999"), (Float(), b"9" * 400),
        ):
            self.assertRaises(Invalid, argument.fromString, data)

    def test_mac_is_lowered(self) -> None:
        """Upper case is accepted."""
        self.assertEqual(Mac().fromString(b"52:54:00:AA:BB:CC"), "52:54:00:aa:bb:cc")


class CommandParsingTests(SynchronousTestCase):
    def test_wrong_type(self) -> None:
        """A number that is none, a boolean that is none: Invalid names the argument."""
        box = {b"program": b"p", b"version": b"1", b"protocol": b"one"}
        error = self.assertRaises(Invalid, Hello.parseArguments, box, None)
        self.assertIn("protocol", str(error))
        box = {b"nodes": b"n", b"hard_only": b"yes", b"cause": b""}
        error = self.assertRaises(Invalid, RebootNodes.parseArguments, box, None)
        self.assertIn("hard_only", str(error))

    def test_missing(self) -> None:
        """A missing argument is named; an optional one may be missing."""
        error = self.assertRaises(Invalid, Hello.parseArguments, {b"program": b"p"}, None)
        self.assertIn("version", str(error))
        box = {b"vci": b"", b"uci": b"", b"ip": b"1.2.3.4", b"mac": b"52:54:00:00:00:01"}
        self.assertEqual(RegisterDevice.parseArguments(dict(box), None).get("name"), None)
