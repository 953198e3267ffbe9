"""What our units write, read from the journal by journalctl(1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from twisted.logger import Logger

from walt.server.runtime.child import ChildService
from walt.server.runtime.kept import LONGEST_REASON, ChildSpec
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.units import JOURNAL

_log = Logger()

UNIT = "_SYSTEMD_UNIT"
Listeners = Mapping[str, Callable[[str], None]]


class Journal(ChildService):
    """Follow the journal of some units; each one's lines go to its listener.

    A journalctl that ends is started again where it was: no line comes twice, and none is lost
    but with its file, when that is removed before it was read. It ends so under a fast writer
    (systemd's issue 36247): one that has got on does not wait.
    """

    def __init__(self, reactor: IReactor, launcher: Launcher, listeners: Listeners) -> None:
        self._listeners = listeners
        self._cursor = ""
        self._got_on = False
        super().__init__(
            reactor, launcher, self._spec_since(f"--since=@{reactor.seconds():.6f}"),
            on_line=self._entry, prepare=self._go_on,
        )

    def _spec_since(self, place: str) -> ChildSpec:
        return ChildSpec(
            "journal",
            (
                "journalctl", f"--namespace={JOURNAL}", "--quiet", "--follow",
                "--no-tail", "--no-pager", "--output=json",
                # Not what they tell syslog as well.
                f"--output-fields=MESSAGE,{UNIT}", place, "_TRANSPORT=stdout",
                *(f"{UNIT}={unit}" for unit in self._listeners),
            ),
        )

    def _go_on(self) -> None:
        self._got_on = False
        if self._cursor:
            # Not --after-cursor: before systemd 255, that passes one over when the file of the
            # cursor is gone (its issue 30288).
            self.spec = replace(
                self.spec, argv=self._spec_since(f"--cursor={self._cursor}").argv
            )

    def _back_off(self, status: int) -> None:
        super()._back_off(status)
        if self._got_on and self._pause is not None:
            self._pause.reset(0)

    def _entry(self, line: str) -> None:
        found = entry(line)
        if found is None:
            self.log_line(line[:LONGEST_REASON])
            return
        cursor, unit, text = found
        if cursor == self._cursor:
            return  # the last one that was read
        self._cursor, self._got_on = cursor, True
        listener = self._listeners.get(unit)
        if listener is None:
            return
        for written in text.split("\n"):
            try:
                listener(written)
            except Exception:
                _log.failure("reading what {unit} wrote", unit=unit)


def entry(line: str) -> tuple[str, str, str] | None:
    """Return cursor, unit and text of a line of `--output=json`, None for another line.

    A text that is not UTF-8 comes as a list of bytes, one that is too long as null.
    """
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    text = found.get("MESSAGE")
    if isinstance(text, list):
        try:
            text = bytes(text).decode(errors="replace")
        except (TypeError, ValueError):
            text = ""
    cursor, unit = found.get("__CURSOR"), found.get(UNIT)
    if not isinstance(cursor, str) or not isinstance(unit, str):
        return None
    return cursor, unit, text if isinstance(text, str) else ""
