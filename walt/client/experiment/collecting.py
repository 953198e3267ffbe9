"""What the platform knows of a run: boots, and log lines, of the times when it ran."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter

from walt.client.answers import NULL
from walt.client.errors import Refused
from walt.client.experiment.archive import BOOTS, INDEX, LOGS, TOPOLOGY, fresh, write_json
from walt.client.experiment.log_counts import index
from walt.client.experiment.topology import snapshot
from walt.client.scripting.boots import boots_of
from walt.client.scripting.link import LINK
from walt.client.scripting.logs import get_logs

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Spans = list[list[float]]  # begin and end, in epoch seconds

BRANCH = {"name": str, "mac": str, "kind": str, "above": (str, NULL), "port": (str, NULL)}
MARGIN = 1.0  # seconds, for clocks that differ


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


def collect(folder: Path, names: Sequence[str], spans: Spans, streams: str | None) -> None:
    """Write the boots of these nodes, and their lines of `streams`. Raises Failure."""
    write_json(folder / BOOTS, [
        boot._asdict() for boot in boots_of(",".join(names), 100)
        if boot.asked is not None and _within(boot.asked, spans)
    ])
    if streams is None:
        return
    wanted = re.compile(streams)
    ago = time.time() - min(begin for begin, _ in spans) + MARGIN
    lines = get_logs(
        ",".join(names), False, f"-{ago:.0f}s:", -1, True, _Names(),  # type: ignore[arg-type]
    )
    target, streams_seen = folder / LOGS, Counter[str]()
    with fresh(target) as file, gzip.open(file, "wt", encoding="utf-8") as text:
        for log in lines:
            stamp = log.timestamp.timestamp()
            if wanted.search(log.stream) and _within(stamp, spans):
                streams_seen[log.stream] += 1
                text.write(json.dumps([stamp, str(log.issuer), log.stream, log.line]) + "\n")
    write_json(folder / INDEX, index(target, streams_seen))


def _within(moment: float, spans: Spans) -> bool:
    return any(begin - MARGIN <= moment <= (end or moment) + MARGIN for begin, end in spans)
