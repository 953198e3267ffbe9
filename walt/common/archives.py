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

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        """Process a header. Raises Invalid.

        Every header comes here, also those that follow another one: `frombuf` sees them in
        some versions of the module alone.
        """
        if self.type in EXTENDED and not 0 <= self.size <= MAX_HEADER:
            raise Invalid(f"the archive holds a header of more than {MAX_HEADER >> 10} KiB")
        return super()._proc_member(archive)  # type: ignore[misc]  # the module's comment allows it
