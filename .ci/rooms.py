"""Everything that continuous integration runs, each part in a bare Debian of its own.

Debian 12 runs `make test`. Debian 13 runs the platform of `make run`, then the long scenarios
and the tests that depend on the release, as far as there is time. Then, each if there is time for
it: the product is installed from its wheel on a Debian in QEMU (`make test-lab-short`), and a
Debian 12 is upgraded to 13 below an installed server. The last lines name what did not pass or was
not run, and sum up what the parts counted.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import NamedTuple


class Room(NamedTuple):
    """A bare Debian, and what runs in it."""

    release: str
    command: tuple[str, ...]
    # Seconds that must be left for it; with a number, it may be cut off by the end of the time.
    least: float = 0.0

    @property
    def title(self) -> str:
        """What a person would type."""
        return " ".join(self.command)


ROOMS = (
    Room("bookworm", ("make", "test")),
    Room("trixie", ("sh", ".ci/system")),
    Room("bookworm", ("make", "test-lab-short"), least=1200.0),
    Room("bookworm", ("scripts/try-debian-upgrade",), least=300.0),
)
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped\n?")


TOLD = ("not passed: ", "passed alone, ", "not run ")  # lines of scripts/run_lanes.py
# Seconds since the start: Debian 13 starts no run after the first one, but for what failed, which
# is tried again; all ends at the second one. What was not run is told.
LAST_START, END = 4000.0, 5200.0


def total(status: int, lines: list[str]) -> list[int]:
    """Return what a room counted (passed, failed, skipped): its status is heard, too."""
    found = [[int(number) for number in match.groups()]
             for match in map(SUMMARY.fullmatch, lines) if match]
    counts = [sum(column) for column in zip(*found, strict=True)] or [0, 0, 0]
    if status != 0 and counts[1] == 0:
        counts[1] = 1  # it failed before it could count, or beside what it counts
    return counts


def failed_tests(release: str, lines: list[str]) -> list[str]:
    """Return the lines that name a test that did not pass, or not at once."""
    return [f"{release}: {line.rstrip()}" for line in lines if line.startswith(TOLD)]


def enter(room: Room, limit: float) -> tuple[list[int], list[str]]:
    """Run what belongs in a room, show what it says; return its counts and what is to be told.

    It is ended after `limit` seconds.
    """
    print(f"== Debian {room.release}: {room.title}", flush=True)
    start, lines = time.monotonic(), []
    with subprocess.Popen(
        ["scripts/clean-room", "--release", room.release, "--", *room.command], text=True,
        errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as running:
        assert running.stdout is not None
        ending = threading.Timer(limit, running.terminate)
        ending.daemon = True
        ending.start()
        try:
            for line in running.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        except BaseException:
            running.terminate()  # it removes what it made
            raise
        finally:
            ending.cancel()
    seconds = time.monotonic() - start
    print(f"== Debian {room.release}: status {running.returncode}, {seconds:.0f} s\n", flush=True)
    return judged(room, running.returncode, lines, cut=seconds >= limit)


def judged(
    room: Room, status: int, lines: list[str], *, cut: bool
) -> tuple[list[int], list[str]]:
    """Return what a room counted, and what is to be told of it.

    What was `cut` off by the end of the time, and had not to be there, has not failed.
    """
    told = failed_tests(room.release, lines)
    if cut and room.least:
        counts = total(0, lines)
        return counts, [*told, f"not finished for want of time: {room.title}"]
    return total(status, lines), told


def ended(number: int, frame: FrameType | None) -> None:
    """End at a signal as at ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run all rooms, one after the other; return the exit status."""
    signal.signal(signal.SIGTERM, ended)
    start, results = time.monotonic(), []
    for number, room in enumerate(ROOMS):
        left = END - (time.monotonic() - start)
        if number:
            last = END if room.least else LAST_START
            os.environ["WALT_TEST_UNTIL"] = str(time.time() + left - (END - last))
        if left < room.least:
            results.append(([0, 0, 0], [f"not run for want of time: {room.title}"]))
            continue
        results.append(enter(room, left))
    counts, names = zip(*results, strict=True)
    passed, failed, skipped = map(sum, zip(*counts, strict=True))
    for line in [one for several in names for one in several]:
        print(line)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
