"""Everything that continuous integration runs, each part in a bare Debian of its own.

Debian 12 runs `make test`. Debian 13 runs the platform of `make run`, then the long scenarios
and the tests that depend on the release, as far as there is time. Then a Debian 12 is upgraded to
13 below an installed server, if there is time. The last lines name what did not pass or was not
run, and sum up what the parts counted.
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

UPGRADE = ("bookworm", ("scripts/try-debian-upgrade",))
ROOMS = (("bookworm", ("make", "test")), ("trixie", ("sh", ".ci/system")), UPGRADE)
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped\n?")


TOLD = ("not passed: ", "passed alone, ", "not run ")  # lines of scripts/run_lanes.py
# Seconds since the start: the second room starts no run after the first one, and ends at the
# second one; what it did not run is told.
LAST_START, END = 4000.0, 5000.0
LEAST = 700.0  # seconds that must be left for the upgrade, which takes some 240


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


def enter(
    release: str, command: tuple[str, ...], limit: float
) -> tuple[list[int], list[str]]:
    """Run a command in a room, show what it says; return its counts and what failed.

    It is ended after `limit` seconds.
    """
    print(f"== Debian {release}: {' '.join(command)}", flush=True)
    start, lines = time.monotonic(), []
    with subprocess.Popen(
        ["scripts/clean-room", "--release", release, "--", *command], text=True,
        errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as room:
        assert room.stdout is not None
        ending = threading.Timer(limit, room.terminate)
        ending.daemon = True
        ending.start()
        try:
            for line in room.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        except BaseException:
            room.terminate()  # it removes what it made
            raise
        finally:
            ending.cancel()
    print(f"== Debian {release}: status {room.returncode}, {time.monotonic() - start:.0f} s\n",
          flush=True)
    return total(room.returncode, lines), failed_tests(release, lines)


def ended(number: int, frame: FrameType | None) -> None:
    """End at a signal as at ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run all rooms, one after the other; return the exit status."""
    signal.signal(signal.SIGTERM, ended)
    start, results = time.monotonic(), []
    for number, room in enumerate(ROOMS):
        elapsed = time.monotonic() - start
        if number:
            os.environ["WALT_TEST_UNTIL"] = str(time.time() + LAST_START - elapsed)
        if room is UPGRADE and END - elapsed < LEAST:
            results.append(([0, 0, 0], [f"not run for want of time: {room[1][0]}"]))
            continue
        results.append(enter(*room, END - elapsed))
    counts, names = zip(*results, strict=True)
    passed, failed, skipped = map(sum, zip(*counts, strict=True))
    for line in [one for several in names for one in several]:
        print(line)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
