"""An experiment, as values."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

ROLE = re.compile(r"[a-z][a-z0-9-]{0,30}")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,60}")
SETTING = re.compile(r"[a-z][a-z0-9.-]{0,40}")
EVERYBODY = "all"  # a step for the nodes of all roles
MOST_POINTS = 10_000
FINAL = ("done", "failed", "unknown")  # outcomes of points that are never measured again
MOST_LINKS = 20
RESERVED = re.compile(r"WALT_.*|LD_.*|PATH|HOME|IFS|ENV|BASH_ENV|SHELL|USER|PWD")


def network_name(run: str, number: int) -> str:
    """Return the name of the network of a link in a run: at most 15 letters and dashes."""
    letters = "".join(chr(ord("a") + int(digit, 16)) for digit in run[:10])
    return f"{letters}-{chr(ord('a') + number)}"


@dataclass(frozen=True)
class Role:
    """What a part of an experiment needs: `count` nodes of a `model` (a pattern) that boot `image`.

    `settings` are those of `walt node config`.
    """

    name: str
    model: str = "*"
    image: str = "default"
    count: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """How two roles are connected: `neighbours` are at one switch.

    Else a network of their own, for virtual nodes: each receives what comes through it `latency`
    (as 8ms) later, at most at `bandwidth` (as 100Mbps), if these are told.
    """

    between: tuple[str, str]
    neighbours: bool = False
    latency: str = ""
    bandwidth: str = ""

    def __str__(self) -> str:
        return " - ".join(self.between)

    @property
    def limits(self) -> str:
        """What the setting `networks` has in brackets."""
        words = [f"{key}={text}" for key, text in (
            ("lat", self.latency), ("bw", self.bandwidth)
        ) if text]
        return f"[{','.join(words)}]" if words else ""


@dataclass(frozen=True)
class Step:
    """A command of the nodes of a role, or a `script` that lies beside the file.

    With `start` it goes on in the background until the end of its point, once it printed `ready`
    (None: at once). It may take `timeout` seconds; `save` are files that it leaves, fetched after.
    """

    role: str
    command: str = ""
    script: str | None = None
    start: bool = False
    ready: str | None = None
    timeout: float | None = None
    save: tuple[str, ...] = ()
    line: int = field(default=0, compare=False)  # where it is in its file


@dataclass(frozen=True)
class Measure:
    """A result: the first group that `pattern` finds in a file that was saved, a number.

    `file` is role/name. Two results are the same within `tolerance` of the larger one.
    """

    name: str
    file: str
    pattern: str
    tolerance: float = 0.0


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how often a point that failed is tried again."""

    boot: float = 600.0
    step: float = 300.0
    retries: int = 0


@dataclass(frozen=True)
class Experiment:
    """What an experiment file says, or a `program` in its stead, which then has the steps."""

    name: str
    licence: str = ""
    program: str = ""
    roles: tuple[Role, ...] = ()
    links: tuple[Link, ...] = ()
    variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repetitions: int = 1
    setup: tuple[Step, ...] = ()
    measure: tuple[Step, ...] = ()
    teardown: tuple[Step, ...] = ()
    results: tuple[Measure, ...] = ()
    streams: str | None = None
    limits: Limits = Limits()

    def networks(self, role: str, run: str) -> list[str]:
        """Return the networks of a role in a run, with their limits, in the order of its links."""
        return [
            network_name(run, number) + link.limits for number, link in enumerate(self.links)
            if role in link.between and not link.neighbours
        ]

    def booting(self, images: Mapping[str, str]) -> Experiment:
        """Return it with other images, by role."""
        return replace(self, roles=tuple(
            replace(role, image=images.get(role.name, role.image)) for role in self.roles
        ))

    def points(self) -> list[Point]:
        """Return what is measured, in order: all values, then all of them again."""
        values = itertools.product(*self.variables.values())
        combinations = [dict(zip(self.variables, words)) for words in values]
        return [
            Point(number, repetition, words) for number, (repetition, words) in enumerate(
                itertools.product(range(1, self.repetitions + 1), combinations), 1
            )
        ]


@dataclass(frozen=True)
class Point:
    """One measurement: its number, counted from 1, its repetition, and the variables."""

    number: int
    repetition: int
    values: Mapping[str, str]

    def __str__(self) -> str:
        words = " ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{words} #{self.repetition}".strip()
