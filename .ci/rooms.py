"""Everything that continuous integration runs, each part in a bare Debian of its own.

Debian 12 runs every test. Debian 13 runs the platform of `make run` and the system tests
that depend on the release. The last line sums up what the parts counted.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from types import FrameType

ROOMS = (("bookworm", ("sh", ".ci/tests")), ("trixie", ("sh", ".ci/system")))
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped\n?")


def total(status: int, lines: list[str]) -> list[int]:
    """Return what a room counted (passed, failed, skipped): its status is heard, too."""
    found = [[int(number) for number in match.groups()]
             for match in map(SUMMARY.fullmatch, lines) if match]
    counts = [sum(column) for column in zip(*found, strict=True)] or [0, 0, 0]
    if status != 0 and counts[1] == 0:
        counts[1] = 1  # it failed before it could count, or beside what it counts
    return counts


def enter(release: str, command: tuple[str, ...]) -> list[int]:
    """Run a command in a room, show what it says, and return its counts."""
    print(f"== Debian {release}: {' '.join(command)}", flush=True)
    start, lines = time.monotonic(), []
    with subprocess.Popen(
        ["scripts/clean-room", "--release", release, "--", *command], text=True,
        errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as room:
        assert room.stdout is not None
        try:
            for line in room.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        except BaseException:
            room.terminate()  # it removes what it made
            raise
    print(f"== Debian {release}: status {room.returncode}, {time.monotonic() - start:.0f} s\n",
          flush=True)
    return total(room.returncode, lines)


def ended(number: int, frame: FrameType | None) -> None:
    """End at a signal as at ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run all rooms, one after the other; return the exit status."""
    signal.signal(signal.SIGTERM, ended)
    passed, failed, skipped = map(sum, zip(*(enter(*one) for one in ROOMS), strict=True))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
