"""Rows as columns of pandas and pyarrow: both hold what the rows say."""

from __future__ import annotations

import pandas
import pyarrow
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.scripting.columns import KINDS, Frame, arrow_batch, pandas_frame

COLUMNS = {kind: kind for kind in KINDS}
MOMENTS = st.integers(0, 4_000_000_000_000_000).map(lambda number: number / 1e6)
ROWS = st.lists(st.tuples(
    st.none() | MOMENTS, st.none() | st.sampled_from(("a", "b", "ü<&>")), st.text(),
    st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False),
))


class ColumnsTests(SynchronousTestCase):
    @given(ROWS)
    def test_what_rows_say(self, rows: list[tuple[object, ...]]) -> None:
        """Every value comes back, moments to the microsecond, also of no rows at all."""
        batch, frame = arrow_batch(COLUMNS, rows), pandas_frame(COLUMNS, rows)
        self.assertEqual((batch.num_rows, len(frame)), (len(rows), len(rows)))
        self.assertEqual(list(frame.columns), list(KINDS))
        for number, (moment, word, *others) in enumerate(rows):
            ours = batch.slice(number, 1).to_pylist()[0]
            theirs = frame.iloc[number]
            self.assertEqual([ours[kind] for kind in KINDS[1:]], [word, *others])
            self.assertEqual([theirs[kind] for kind in KINDS[2:]], others)
            self.assertEqual(None if pandas.isna(theirs["word"]) else theirs["word"], word)
            self.assertEqual(moment is None, pandas.isna(theirs["moment"]))
            if moment is not None:
                self.assertEqual(ours["moment"], theirs["moment"])
                self.assertAlmostEqual(theirs["moment"].timestamp(), moment, delta=2e-6)

    def test_types(self) -> None:
        """The same for few and for many rows."""
        for rows in ([], [(1.0, "a", "b", 2, 3.0)]):
            table = Frame(COLUMNS, rows).to_arrow()
            self.assertEqual(table.schema.types, [
                pyarrow.timestamp("us", tz="UTC"),
                pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
                pyarrow.string(), pyarrow.int64(), pyarrow.float64(),
            ])
            kinds = [str(one) for one in Frame(COLUMNS, rows).to_pandas().dtypes]
            self.assertEqual(kinds[:2] + kinds[3:], [
                "datetime64[us, UTC]", "category", "int64", "float64",
            ])
