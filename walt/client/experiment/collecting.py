"""What the platform knows of a run: boots, and log lines, of the times when it ran."""

from __future__ import annotations

import gzip
import json
import re
import time

from walt.client.experiment.archive import BOOTS, LOGS, fresh, write_json
from walt.client.scripting.boots import boots_of
from walt.client.scripting.logs import get_logs

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Spans = list[list[float]]  # begin and end, in epoch seconds

MARGIN = 1.0  # seconds, for clocks that differ


class _Names:
    """Issuers of log lines, by their names alone."""

    def __getitem__(self, name: str) -> str:
        return name


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
    target = folder / LOGS
    with fresh(target) as file, gzip.open(file, "wt", encoding="utf-8") as text:
        for log in lines:
            stamp = log.timestamp.timestamp()
            if wanted.search(log.stream) and _within(stamp, spans):
                text.write(json.dumps([stamp, str(log.issuer), log.stream, log.line]) + "\n")


def _within(moment: float, spans: Spans) -> bool:
    return any(begin - MARGIN <= moment <= (end or moment) + MARGIN for begin, end in spans)
