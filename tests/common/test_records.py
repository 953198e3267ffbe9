"""Log records on the wire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.records import decode, encode

NAMES = {"a": "node-1", "b": "node-2"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
RECORDS = st.tuples(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from("ab"), TEXTS, TEXTS
)


class RecordsTests(SynchronousTestCase):
    @given(st.lists(RECORDS, min_size=1, max_size=8))
    def test_any(self, records: list[tuple[float, str, str, str]]) -> None:
        """What is written is read, with the names of issuers, on one line."""
        line = encode(records, NAMES)
        self.assertEqual(line.index(b"\n"), len(line) - 1)
        self.assertEqual(
            decode(line), [(stamp, NAMES[issuer], *more) for stamp, issuer, *more in records]
        )

    def test_form(self) -> None:
        """One source, several, a newline inside."""
        self.assertEqual(
            encode([(1.5, "a", "s", "x"), (2.0, "a", "s", "y")], NAMES),
            b'[[["node-1", "s"]], null, [1.5, 2.0], "x\\ny"]\n',
        )
        self.assertEqual(
            encode([(1.5, "a", "s", "x\ny")], NAMES),
            b'[[["node-1", "s"]], null, [1.5], ["x\\ny"]]\n',
        )
