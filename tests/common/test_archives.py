"""Headers of archives: what the module reads alike, and what would cost too much."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.archives import (
    MAX_GLOBAL,
    MAX_RECORDS,
    BoundedMember,
    members,
    records,
)
from walt.common.errors import Invalid

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=40
)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="=\0\n"), min_size=1, max_size=20)


def header(kind: bytes, data: bytes) -> bytes:
    """Return an extended header with this content."""
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, len(data)
    return member.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % 512)


def record(key: str, value: str) -> bytes:
    """Return one record of an extended header."""
    body = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def read(data: bytes) -> list[tarfile.TarInfo]:
    """Return the members of an archive that is read as a stream."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|", tarinfo=BoundedMember) as archive:
        found = []
        for member in members(archive):
            assert not archive.members  # type: ignore[attr-defined]
            found.append(member)
        return found


END = b"\0" * 1024


class ArchivesTests(SynchronousTestCase):
    @given(st.lists(st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300),
        st.dictionaries(KEYS.map("SCHILY.xattr.user.".__add__), TEXTS, max_size=3),
        st.floats(0, 2e9), st.binary(max_size=600),
    ), max_size=4))
    def test_as_the_module_reads_it(
        self, wanted: list[tuple[str, dict[str, str], float, bytes]]
    ) -> None:
        """Names of any length, attributes, times with fractions, data."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, attributes, mtime, data in wanted:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.pax_headers = len(data), mtime, attributes
                archive.addfile(member, io.BytesIO(data))
        with tarfile.open(fileobj=io.BytesIO(made.getvalue()), mode="r:") as archive:
            expected = [
                (one.name, one.size, one.mtime, one.pax_headers, archive.extractfile(one).read())  # type: ignore[union-attr]
                for one in archive
            ]
        for mode in ("r|", "r:"):
            with tarfile.open(
                fileobj=io.BytesIO(made.getvalue()), mode=mode, tarinfo=BoundedMember  # type: ignore[call-overload]
            ) as archive:
                self.assertEqual([
                    (one.name, one.size, one.mtime, one.pax_headers,
                     archive.extractfile(one).read())
                    for one in members(archive)
                ], expected)

    def test_header_of_all(self) -> None:
        """It holds for those that follow, and the own header of a member wins."""
        one = tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT)
        found = read(
            header(tarfile.XGLTYPE, record("comment", "all")) + one
            + header(tarfile.XHDTYPE, record("path", "b")) + one
            + header(tarfile.XHDTYPE, record("comment", "own")) + one + END
        )
        self.assertEqual([each.name for each in found], ["a", "b", "a"])
        self.assertEqual([each.pax_headers.get("comment") for each in found[1:]], ["all", "own"])

    def test_too_dear(self) -> None:
        """What would be copied for each member, or remembered without end, is refused."""
        one = tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT)
        many = b"".join(record(f"k{number}", "") for number in range(MAX_RECORDS + 1))
        half = record("x", "y" * (MAX_GLOBAL // 2))
        old = tarfile.TarInfo("a")
        old.type = tarfile.GNUTYPE_SPARSE
        for data in (
            header(tarfile.XHDTYPE, many) + one,
            header(tarfile.XGLTYPE, half) + header(tarfile.XGLTYPE, half.replace(b"x", b"z")) + one,
            header(tarfile.XHDTYPE, record("GNU.sparse.major", "1")) + one,
            header(tarfile.XHDTYPE, record("GNU.sparse.map", "0,1")) + one,
            header(tarfile.XHDTYPE, b"1" * (1 << 20)) + one,
            old.tobuf(tarfile.GNU_FORMAT),
        ):
            self.assertRaises(Invalid, read, data + END)
        self.assertRaises(tarfile.ReadError, read, header(tarfile.XHDTYPE, record("a", "b")) + END)

    def test_no_records(self) -> None:
        """Lengths that are none, or those of something else."""
        for data in (
            b"x", b"5", b"0 a=b\n", b"-6 a=b\n", b"7 a=b\n", b"5 a=b\n", b"6 a=bc", b"6 ab c\n",
            b"5 =b\n", b"99999999999999999999 a=b\n", b"6 a=b\nx", " \u0663 a=b\n".encode(),
        ):
            self.assertRaises(Invalid, records, data)
        self.assertEqual(records(b"6 a=b\n8 a=c=\n\n"), {"a": "c=\n"})

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Records, or Invalid."""
        try:
            records(data)
        except Invalid:
            pass
