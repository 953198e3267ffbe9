"""What a person asks of a replay, in words: the commands of `walt-server-trackexec-replay`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from walt.server.trackexec import codes
from walt.server.trackexec.record import Record
from walt.server.trackexec.replay import Place, Replay
from walt.server.trackexec.sources import Source

HELP = """\
n            next line of this function or coroutine; calls are passed over
s            next line that was executed, of whatever function
c            on to the next breakpoint, or to the end
w            who called: the stack, outermost first
b [LINE]     set or remove a breakpoint at a line of the file that is shown
b FUNCTION   the same where a function begins (NAME or Class.NAME)
j TIME       jump to a time: HH:MM:SS.ssssss, YYYY-MM-DD, +N or -N with s, m, h or d
f SUFFIX     show another file, by the end of its path
/TEXT        on to the next line whose source holds a text
h            this help
q            quit"""
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Refused(Exception):
    """A command that cannot be obeyed; the text says why."""


class Session:
    """A replay, and the file that is shown of it."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.replay = Replay(record)
        self.shown: Source | None = None
        self.replay.step()
        self._follow()

    def run(self, line: str) -> str:
        """Obey one command; return what is to be told beside the position.

        Raises Refused with what is wrong with it.
        """
        word, rest = line[:1], line[1:].strip()
        if word == "/":
            return self._search(rest)
        obey = {"n": self._next, "s": self._step, "c": self._continue, "w": self._who,
                "b": self._break, "j": self._jump, "f": self._file, "h": self._help}.get(word)
        if obey is None or (rest and word in "nscwh") or (rest and line[1:2] not in " "):
            raise Refused(f"there is no command {line!r}; h shows them")
        return obey(rest)

    @property
    def position(self) -> str:
        """The position in one line: time, file, line, function."""
        replay = self.replay
        if replay.source is None:
            return "(end of the record)" if replay.at_end else "(start of the record)"
        end = ", end of the record" if replay.at_end else ""
        when = datetime.fromtimestamp(replay.time / 1e6).isoformat(" ", "microseconds")
        function = replay.stack[-1].function.name
        return f"{when} {replay.source.short}:{replay.line} {function}{end}"

    def breakpoints(self, file: int) -> set[int]:
        """Return the lines of a file that have one."""
        return {stop.line for stop in self.replay.breakpoints if stop.file == file}

    def files(self) -> list[str]:
        """Return the paths of the files that were recorded."""
        return sorted(source.short for source in self._record.sources())

    # -- commands ----------------------------------------------------------------

    def _follow(self) -> str:
        self.shown = self.replay.source or self.shown
        gaps, self.replay.gaps = self.replay.gaps, 0
        return f"{gaps} blocks of the record are missing or damaged" if gaps else ""

    def _next(self, _: str) -> str:
        self.replay.next()
        return self._follow()

    def _step(self, _: str) -> str:
        self.replay.step()
        return self._follow()

    def _continue(self, _: str) -> str:
        self.replay.go_on()
        return self._follow()

    def _help(self, _: str) -> str:
        return HELP

    def _who(self, _: str) -> str:
        lines = []
        for frame in self.replay.stack:
            source = self._record.source(frame.function.file)
            awaits = " (waits)" if frame.waiting else ""
            lines.append(
                f"{source.short}:{frame.line} {frame.function.name}{awaits}:"
                f" {source.text(frame.line).strip()}"
            )
        return "\n".join(lines) or "nothing runs here"

    def _break(self, where: str) -> str:
        if where and not where.isdecimal():
            found = {
                Place(function.file, function.line, True)
                for source in self._record.sources() for function in source.functions(where)
            }
            if not found:
                raise Refused(f"no recorded file has a function {where}")
            return self._toggle(found, where)
        if self.shown is None:
            raise Refused("no file is shown; f SUFFIX shows one")
        line = int(where) if where else self.replay.line
        place = Place(self.shown.number, line)
        if place not in self.replay.breakpoints and not self._was_executed(place):
            raise Refused(f"line {line} of {self.shown.short} was not executed in this record")
        return self._toggle({place}, f"{self.shown.short}:{line}")

    def _was_executed(self, place: Place) -> bool:
        return any(
            place.code in found
            for found in map(self._record.codes, self._record.entries) if found is not None
        )

    def _toggle(self, places: set[Place], name: str) -> str:
        if places <= self.replay.breakpoints:
            self.replay.breakpoints -= places
            return f"no breakpoint at {name} any more"
        self.replay.breakpoints |= places
        return f"breakpoint at {name}"

    def _jump(self, text: str) -> str:
        self.replay.jump(moment(text, self.replay.time))
        return self._follow()

    def _file(self, suffix: str) -> str:
        found = [
            source for source in self._record.sources()
            if suffix and source.short.endswith(suffix)
        ]
        exact = [source for source in found if source.short == suffix]
        if len(exact or found) != 1:
            names = ", ".join(source.short for source in found[:5])
            raise Refused(
                f"several files end with {suffix}: {names}" if found
                else f"no recorded file ends with {suffix!r}"
            )
        self.shown = (exact or found)[0]
        return ""

    def _search(self, text: str) -> str:
        if not text:
            raise Refused("give a text, as /import_image")
        places = {
            codes.place(codes.LINE, source.number, number)
            for source in self._record.sources()
            for number, line in enumerate(source.lines, 1) if text in line
        }
        if not places:
            raise Refused(f"no recorded file holds {text!r}")
        found = self.replay.find(places)
        return self._follow() if found else f"{text!r} was not executed after this"


def moment(text: str, now: int) -> int:
    """Return the time a person means, in microseconds since 1970; `now` is that of the position.

    Raises Refused for what is no time.
    """
    relative = re.fullmatch(r"([+-])\s*(\d{1,9})\s*([smhd])", text)
    if relative:
        sign, count, unit = relative.groups()
        delta = timedelta(**{UNITS[unit]: int(count)}) // timedelta(microseconds=1)
        return max(0, now + delta if sign == "+" else now - delta)
    base = datetime.fromtimestamp(now / 1e6)
    for format in ("%H:%M:%S.%f", "%H:%M:%S", "%H:%M", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S"):
        try:
            found = datetime.strptime(text, format)
        except ValueError:
            continue
        if "%Y" not in format:
            found = datetime.combine(base.date(), found.time())
        return max(0, round(found.timestamp() * 1e6))
    raise Refused(
        f"{text!r} is no time; say HH:MM:SS.ssssss, YYYY-MM-DD, or +N or -N with s, m, h or d"
    )
