"""Headers of tar archives that others made (pax(1), GNU tar)."""

from __future__ import annotations

import tarfile

from walt.common.errors import Invalid

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_HEADER = 1 << 20  # bytes of one extended header: it is read as a whole
MAX_RECORDS = 4096  # of one extended header: attributes, mostly
MAX_GLOBAL = 1 << 14  # characters of what headers say of all members: each one gets a copy
EXTENDED = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
SPARSE = "GNU.sparse."
LENGTH_DIGITS = len(str(MAX_HEADER))
# What the tarfile and os modules raise for numbers, and headers of headers: they take them as
# they come.
UNREADABLE = (ValueError, OverflowError, RecursionError)


class BoundedMember(tarfile.TarInfo):
    """A member whose extended headers (names, times, attributes) are bounded.

    They are read here: what the module does with them takes time with the square of their
    size in some versions (CVE-2024-6232), and memory without limit for maps of sparse files,
    which are refused.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        """Process a header. Raises Invalid.

        Every header comes here, also those that follow another one: `frombuf` sees them in
        some versions of the module alone.
        """
        if self.type in EXTENDED and not 0 <= self.size <= MAX_HEADER:
            raise Invalid(f"the archive holds a header of more than {MAX_HEADER >> 10} KiB")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse()
        if self.type in PAX:
            return self._extended(archive)
        return super()._proc_member(archive)  # type: ignore[misc]  # the module's comment allows it

    def _extended(self, archive: Any) -> Any:
        found = records(archive.fileobj.read(self._block(self.size))[:self.size])  # type: ignore[attr-defined]
        of_all = self.type == tarfile.XGLTYPE
        if of_all:
            archive.pax_headers.update(found)
            if sum(len(key) + len(text) for key, text in archive.pax_headers.items()) > MAX_GLOBAL:
                raise Invalid("the archive holds too long a header for all its members")
        try:
            member = self.fromtarfile(archive)
        except tarfile.HeaderError:
            raise tarfile.ReadError("a header has no member") from None
        if not of_all:
            found = {**archive.pax_headers, **found}
            member._apply_pax_info(found, archive.encoding, archive.errors)  # type: ignore[attr-defined]
            member.offset = self.offset
            if "size" in found:
                has_data = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
                data = member._block(member.size) if has_data else 0  # type: ignore[attr-defined]
                archive.offset = member.offset_data + data
        return member


def records(data: bytes) -> dict[str, str]:
    """Return the records of an extended header, `LENGTH KEYWORD=VALUE` and a line feed each.

    LENGTH counts itself (pax(1), "pax Extended Header"). Raises Invalid.
    """
    found: dict[str, str] = {}
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + LENGTH_DIGITS + 1)
        digits = data[start:space] if space > start else b""
        end = start + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1:end].partition(b"=")
        if end > len(data) or not key or not equals or not value.endswith(b"\n"):
            raise Invalid("the archive holds a header that makes no sense")
        if key.startswith(SPARSE.encode()):
            raise _sparse()
        found[key.decode("utf-8", "surrogateescape")] = value[:-1].decode(
            "utf-8", "surrogateescape"
        )
        if len(found) > MAX_RECORDS:
            raise Invalid(f"the archive holds a header of more than {MAX_RECORDS} records")
        start = end
    return found


def _sparse() -> Invalid:
    return Invalid("the archive holds maps of sparse files: make it without (tar without -S)")


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members as they come. The archive keeps none: there may be millions."""
    while True:
        member = archive.next()
        if member is None:
            return
        archive.members.clear()  # type: ignore[attr-defined]  # in the module since ever
        yield member
