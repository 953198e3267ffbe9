"""Headers of tar archives that others made."""

from __future__ import annotations

import tarfile

from walt.common.errors import Invalid

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

MAX_HEADER = 1 << 20  # bytes of one extended header: the module reads it as a whole
EXTENDED = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What the tarfile and os modules raise for numbers, and headers of headers: they take them as
# they come.
UNREADABLE = (ValueError, OverflowError, RecursionError)


class BoundedMember(tarfile.TarInfo):
    """A member whose extended headers (names, times, sparse maps) are bounded."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> BoundedMember:
        """Read a header of 512 bytes. Raises Invalid."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in EXTENDED and not 0 <= member.size <= MAX_HEADER:
            raise Invalid(f"the archive holds a header of more than {MAX_HEADER >> 10} KiB")
        return member
