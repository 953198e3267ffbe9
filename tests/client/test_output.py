"""JSON of an answer is printed as `print_json` prints its value, however it came."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.answers import Answer
from walt.client.errors import Failure
from walt.client.output import print_json, print_written

ROWS = st.lists(st.fixed_dictionaries({"name": st.text(max_size=8), "n": st.integers()}))
VALUES = st.fixed_dictionaries({"free": ROWS, "own": ROWS, "total": st.integers(0, 99)})


def printed(answer: Answer) -> str:
    """Return what is printed of an answer."""
    with redirect_stdout(StringIO()) as out:
        print_written(answer, "tables", "total")
    return out.getvalue()


def answer(pieces: list[bytes]) -> Answer:
    """Return an answer whose value has come in these pieces."""
    return Answer({
        b"tables+%d" % number if number else b"tables": piece
        for number, piece in enumerate(pieces)
    })


def written(value: dict[str, object]) -> bytes:
    """Return a value as servers write it."""
    with redirect_stdout(StringIO()) as out:
        print_json(value)
    return out.getvalue()[:-1].encode()


class WrittenTests(SynchronousTestCase):
    @given(VALUES, st.lists(st.integers(0, 2000), max_size=9))
    def test_any_pieces(self, value: dict[str, object], cuts: list[int]) -> None:
        """Wherever it was cut, and whatever its texts are."""
        whole = written(value)
        at = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        pieces = [whole[start:end] for start, end in pairwise(at)]
        expected = {name: rows for name, rows in value.items() if name != "total"}
        with redirect_stdout(StringIO()) as out:
            print_json(expected)
        self.assertEqual(json.loads(printed(answer(pieces))), expected)
        if any(expected.values()):
            self.assertEqual(printed(answer(pieces)), out.getvalue())

    def test_written_otherwise(self) -> None:
        """What only looks like it is read before it is printed: nothing gets to a terminal."""
        plain = written({"own": [{"name": "a"}], "total": 1})
        for pieces in ([b"\x1b[2J", plain], [plain[:-2], b"\x1b[2J\n}"], [plain[:9], b"\x9b"]):
            self.assertRaises(Failure, printed, answer(pieces))
        compact = json.dumps({"total": 1, "own": []}).encode()
        self.assertEqual(json.loads(printed(answer([compact[:5], compact[5:]]))), {"own": []})
        self.assertRaises(Failure, printed, Answer())

    def test_of_another_kind(self) -> None:
        """JSON that is not what was asked for is told in words."""
        for whole in (b"[]", b"{}", b"null", b'{"total": "x"}'):
            self.assertRaises(Failure, printed, answer([whole]))
