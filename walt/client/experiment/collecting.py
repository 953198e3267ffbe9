"""What the platform knows of a run: boots, and log lines, of the times when it ran."""

from __future__ import annotations

import re
import time
from collections import Counter

from walt.client.answers import NULL
from walt.client.errors import Failure, Refused
from walt.client.experiment.archive import BOOTS, INDEX, TOPOLOGY, write_json
from walt.client.experiment.log_counts import index
from walt.client.experiment.log_file import Aligner, lines_of, write
from walt.client.experiment.topology import snapshot
from walt.client.scripting.boots import boots_of
from walt.client.scripting.link import LINK
from walt.client.scripting.logs import get_logs
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from walt.client.experiment.clocks import Clock
    from walt.client.experiment.log_file import Lines
    from walt.client.scripting.logs import LogLines

    Spans = list[list[float]]  # begin and end, in epoch seconds of the server

BRANCH = {"name": str, "mac": str, "kind": str, "above": (str, NULL), "port": (str, NULL)}
FOR_EVER = 1e11  # epoch seconds
MARGIN = 1.0  # seconds that what happens at the edge of a span may take


class _Names:
    """Issuers of log lines, by their names alone."""

    def __getitem__(self, name: str) -> str:
        return name


def look_around(folder: Path, names: Sequence[str]) -> None:
    """Write where these nodes are connected. Raises Failure."""
    try:
        answer = LINK.call("cs.devices.tree", all=True)
    except Refused:  # no switch is known: a platform of virtual nodes has none
        ways = snapshot([], "", names)
    else:
        ways = snapshot(
            answer.json("branches", [BRANCH]), answer[b"root"].decode(errors="replace"), names
        )
    write_json(folder / TOPOLOGY, {"moment": time.time(), "ways": ways})


def collect(
    folder: Path, names: Sequence[str], spans: Spans, streams: str | None,
    clocks: Mapping[str, Clock], now: float,
) -> None:
    """Write the boots of these nodes, and their lines of `streams`. Raises Failure.

    `clocks` are those of the nodes that stamp their lines themselves; `spans` and `now` are by the
    server's clock.
    """
    if not names:
        raise Failure("none of its nodes is there any more")
    write_json(folder / BOOTS, [
        boot._asdict() for boot in boots_of(",".join(names), 100)
        if boot.asked is not None and _within(boot.asked, spans)
    ])
    if streams is None:
        return
    # Stamps of a clock that is behind are those of an earlier time.
    behind = max(0.0, *(clock.behind() for clock in clocks.values()), 0.0)
    ago = now - min(begin for begin, _ in spans) + MARGIN + behind
    lines = get_logs(
        ",".join(names), False, f"-{ago:.0f}s:", -1, True, _Names(),  # type: ignore[arg-type]
    )
    counts = Counter[str]()
    try:
        target = write(folder, _wanted(lines, spans, re.compile(streams), counts, clocks))
    except (OSError, ValueError) as error:
        raise Failure(f"the log lines were not written: {in_words(error)}") from None
    write_json(folder / INDEX, index(target, counts))


def _wanted(
    lines: LogLines, spans: Spans, streams: re.Pattern[str], counts: Counter[str],
    clocks: Mapping[str, Clock],
) -> Iterator[Lines]:
    """Yield the lines of some streams and times, aligned, by groups, and count them."""
    known: dict[str, bool] = {}
    aligner = Aligner(clocks)
    limits = [
        (round((begin - MARGIN) * 1e6), round(((end or FOR_EVER) + MARGIN) * 1e6))
        for begin, end in spans
    ]

    def wanted(stream: str) -> bool:
        found = known.get(stream)
        if found is None:
            found = known[stream] = bool(streams.search(stream))
        return found

    for block in lines._left():
        found = lines_of(block, wanted)
        aligner.align(found)
        found = found.within(limits)
        for position, count in Counter(found.which).items():
            counts[found.sources[position][1]] += count
        yield found


def _within(moment: float, spans: Spans) -> bool:
    return any(begin - MARGIN <= moment <= (end or moment) + MARGIN for begin, end in spans)
