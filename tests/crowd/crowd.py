"""One crowd, from its first person to the last look at the platform."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from twisted.internet.defer import Deferred, DeferredList

from tests.crowd.people import Command, Person
from tests.crowd.state import differences, nodes_of
from tests.system.live import LivePlatform

SETTLED_WITHIN = 180.0  # seconds: the grace time of images, and a few retries
TIMES = 3.0  # how many times slower than on a quiet platform a command may be
ALWAYS_GOOD = 30.0  # seconds that prove nothing: six machines may boot on two processors


class Crowd:
    """People on a started platform; `seed` decides what they do."""

    def __init__(self, platform: LivePlatform, seed: int, people: int = 3) -> None:
        self.platform = platform
        self.place = platform.base / "crowd"
        self.place.mkdir()
        choice = random.Random(seed)
        self.first = Person(platform, "zoe", random.Random(choice.random()), self.place)
        self.people = [
            Person(platform, name, random.Random(choice.random()), self.place)
            for name in ("ann", "bob", "cyd", "dan", "eve")[:people]
        ]
        self.faults: list[str] = []

    async def work(self, seconds: float) -> None:
        """Measure a quiet platform, then let everybody work for so long."""
        await self.first.tour()
        until = self.platform.reactor.seconds() + seconds
        working = [Deferred.fromCoroutine(person.work(until)) for person in self.people]
        for person, (good, result) in zip(
            self.people, await DeferredList(working, consumeErrors=True), strict=True
        ):
            if not good:
                self.faults.append(f"{person.name} gave up: {result.getErrorMessage()}")

    async def look(self) -> None:
        """Note what is not as it must be afterwards."""
        platform = self.platform
        for name, row in (await platform.services()).items():
            if row["trouble"] is not None:
                self.faults.append(f"{name} had a bad time: {row}")
            # dhcpd starts again for each change of its configuration, the others never do.
            if row["restarts"] and name != "dhcpd":
                self.faults.append(f"{name} was started again: {row}")
        log = platform.log.read_text(errors="replace")
        if "Traceback" in log:
            self.faults.append("traceback: " + log[log.index("Traceback"):][:3000])
        await self._boot_all()
        await self._compare()
        self.faults += [
            f"{one.kind} took {one.seconds:.1f} s: {' '.join(one.words)}" for one in self.slow()
        ]

    async def _boot_all(self) -> None:
        for person in [self.first, *self.people]:
            nodes = await person.nodes()
            if nodes:
                await person.walt("", "node", "reboot", ",".join(nodes))
        for person in [self.first, *self.people]:
            nodes = await person.nodes()
            if nodes:
                await person.booted(*nodes)

    async def _compare(self) -> None:
        nodes = await nodes_of(self.platform)
        limit = self.platform.reactor.seconds() + SETTLED_WITHIN
        found = differences(self.platform, nodes)
        while found and self.platform.reactor.seconds() < limit:
            await self.platform.sleep(2)
            found = differences(self.platform, nodes)
        self.faults += found

    # -- times --------------------------------------------------------------

    def quiet(self) -> dict[str, float]:
        """Return the longest time of each kind of command on the quiet platform."""
        return {kind: max(times) for kind, times in _by_kind(self.first.commands).items()}

    def commands(self) -> list[Command]:
        """Return what the crowd did."""
        return [one for person in self.people for one in person.commands]

    def slow(self) -> list[Command]:
        """Return the commands that took far longer than on the quiet platform."""
        quiet = self.quiet()
        return [
            one for one in self.commands()
            if one.seconds > max(ALWAYS_GOOD, TIMES * quiet.get(one.kind, ALWAYS_GOOD))
        ]

    def table(self) -> str:
        """Return a line for each kind of command."""
        quiet = self.quiet()
        lines = [f"{'command':18} {'number':>6} {'quiet':>7} {'median':>7} {'longest':>7}"]
        for kind, times in sorted(_by_kind(self.commands()).items()):
            lines.append(
                f"{kind:18} {len(times):6} {quiet.get(kind, 0.0):7.2f} {median(times):7.2f}"
                f" {max(times):7.2f}"
            )
        return "\n".join(lines)


def _by_kind(commands: Sequence[Command]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for one in commands:
        found.setdefault(one.kind, []).append(one.seconds)
    return found


def keep_log(platform: LivePlatform, path: Path) -> None:
    """Copy the server's log to where it stays."""
    path.write_bytes(platform.log.read_bytes())
