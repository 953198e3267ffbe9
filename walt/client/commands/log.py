"""`walt log`."""

from __future__ import annotations

import sys

from walt.client.errors import FAILED, INTERRUPTED, WRONG_WORDS, Failure, Refused
from walt.client.grammar import Arg, Command, Switch
from walt.client.log_lines import json_lines, received
from walt.client.session import Session
from walt.client.terminal import Terminal, both_terminals, confirm

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from walt.common.records import Record

    Formatter = Callable[[list[Record]], str]

DEFAULT_FORMAT = "{timestamp:%H:%M:%S.%f} {issuer}.{stream} -> {line}"
DAY = 86_400.0  # seconds; lines that may be older are shown with their date
CLOCKS_DIFFER = 60.0  # seconds, about, between this machine and the server
LARGE = 1000
HINT = "See `walt help show log-show`."


def show(
    realtime: bool, history: str, format: str, issuers: str, streams: str | None,
    platform: bool, server: bool, consoles: bool, json: bool, logline_regexp: str | None,
) -> int:
    """Print stored lines, then live ones."""
    from walt.client.operations.history import parse_range

    wanted = None if history.lower() == "none" else history
    if wanted is None and not realtime:
        raise Failure(f"Use --history, --realtime, or both. {HINT}", WRONG_WORDS)
    query = _query(issuers, streams, platform, server, logline_regexp)
    query["exclude_consoles"] = query["streams"] is None and not consoles
    dated = False
    if wanted is not None:
        session = Session(Terminal())
        query["start"], query["end"] = parse_range(session, wanted)
        dated = _may_be_old(query["start"])
        if logline_regexp is None and both_terminals() and not _confirmed(session, query):
            return 1
        session.close()
    formatted = json_lines if json else _formatter(format, dated)
    try:
        for records in received(dict(query, history=wanted is not None, realtime=realtime)):
            sys.stdout.write(formatted(records))
            sys.stdout.flush()
    except KeyboardInterrupt:
        print()
        return INTERRUPTED
    return 0


def wait(
    mode: str, time_margin: int, timeout: int, format: str, issuers: str, streams: str | None,
    platform: bool, server: bool, logline_regexp: str,
) -> int:
    """Print matching lines until one has come, or one from each issuer."""
    query = _query(issuers, streams, platform, server, logline_regexp)
    from walt.client.operations.nodes import TooLate, limited

    session = Session()
    missing = set(session.json("cs.logs.issuers", "names", issuers=query["issuers"]))
    if time_margin > 0:
        query["start"] = float(session.call("cs.server.time")[b"time"]) - time_margin
    session.close()
    formatted = _formatter(format)
    try:
        with limited(timeout, "Timeout: the expected log lines did not come."):
            for records in received(dict(query, history=time_margin > 0, realtime=True)):
                for record in records:
                    sys.stdout.write(formatted([record]))
                    sys.stdout.flush()
                    missing.discard(record[1])
                    if mode == "ANY" or not missing:
                        return 0
    except TooLate as error:
        print(error, file=sys.stderr)
    return FAILED


def _query(
    issuers: str, streams: str | None, platform: bool, server: bool, expression: str | None
) -> dict[str, Any]:
    """Return the query of the switches. Raises Failure for an expression that is not one."""
    for pattern in (streams, expression):
        if pattern is not None:
            _check(pattern)
    if platform:
        issuers, streams = "server", "platform.*"
    elif server:
        issuers, streams = "server", "daemon.*"
    return {"issuers": issuers, "streams": streams, "lines": expression}


def _check(expression: str) -> None:
    """Find what is no expression anywhere; the server knows all rules (POSIX, extended)."""
    import re
    import warnings

    if re.search(r"(?:^|[^\\])(?:\\\\)*\\[dDsSwWbB0-9]", expression):
        raise Failure(
            f"{expression!r} is not an extended regular expression of POSIX: write for example"
            " [0-9] for a digit; see: walt help show log-show", WRONG_WORDS,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes of characters are new to Python
            re.compile(expression)
    except re.error as error:
        raise Failure(
            f"{expression!r} is not a valid regular expression: {error}", WRONG_WORDS
        ) from None


def _confirmed(session: Session, query: dict[str, Any]) -> bool:
    try:
        count = int(session.call("cs.logs.count", query=query)[b"count"])
    except Refused as error:
        if error.code != "LIMIT_EXCEEDED":
            raise
        print("This will print too many log lines to count them.")
        return confirm()
    if count <= LARGE:
        return True
    print(f"This will print about {count} log lines.")
    return confirm()


def _may_be_old(start: float | None) -> bool:
    """Tell whether a range of history goes back further than a day."""
    from time import time

    return start is None or start < time() - DAY - CLOCKS_DIFFER


def _formatter(template: str, dated: bool = False) -> Formatter:
    """Return what prints records; on a terminal, consoles as the text that they showed.

    The default format gets the date when `dated`.
    """
    formatted = _default_lines(dated) if template == DEFAULT_FORMAT else _template_lines(template)
    if not sys.stdout.isatty():
        return formatted
    from walt.client.chunks import readable

    return lambda records: formatted(readable(records))


def _default_lines(dated: bool) -> Formatter:
    """Return what prints the default format: 5 times faster than the template.

    Lines of one second share the text of its hour, minute and second.
    """
    from datetime import datetime

    seconds: dict[int, str] = {}
    template = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"

    def formatted(records: list[Record]) -> str:
        out = []
        for timestamp, issuer, stream, line in records:
            second = int(timestamp // 1)
            micro = round((timestamp - second) * 1e6)
            if micro == 1_000_000:
                second, micro = second + 1, 0
            clock = seconds.get(second)
            if clock is None:
                if len(seconds) > 10_000:
                    seconds.clear()
                clock = seconds[second] = f"{datetime.fromtimestamp(second):{template}}"
            out.append(f"{clock}.{micro:06d} {issuer}.{stream} -> {line}\n")
        return "".join(out)

    return formatted


def _template_lines(template: str) -> Formatter:
    from datetime import datetime

    zoned = "%z" in template or "%Z" in template

    def moment(timestamp: float) -> datetime:
        local = datetime.fromtimestamp(timestamp)
        return local.astimezone() if zoned else local

    def formatted(records: list[Record]) -> str:
        try:
            return "".join([
                template.format(
                    timestamp=moment(timestamp), issuer=issuer, stream=stream,
                    line=line,
                ) + "\n"
                for timestamp, issuer, stream, line in records
            ])
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            raise Failure(
                f"the log format cannot be applied ({error}); check --format."
                " See `walt help show log-format`."
            ) from None

    return formatted


def export(
    format: str, history: str, issuers: str, streams: str | None, platform: bool, server: bool,
    file: str, logline_regexp: str | None,
) -> int:
    """Write stored lines to a file."""
    from walt.client.commands import log_export

    query = _query(issuers, streams, platform, server, logline_regexp)
    return log_export.export(query, history, format, file)


def add_checkpoint(date: str | None, checkpoint_name: str) -> int:
    """Name a moment."""
    from walt.client.commands import checkpoints

    return checkpoints.add(checkpoint_name, date)


def remove_checkpoint(checkpoint_name: str) -> int:
    """Forget a moment."""
    from walt.client.commands import checkpoints

    return checkpoints.remove(checkpoint_name)


def list_checkpoints(json: bool) -> int:
    """Print the named moments."""
    from walt.client.commands import checkpoints

    return checkpoints.show(json)


ISSUERS = "--issuers"
SHORTCUTS = (ISSUERS, "--streams")

FORMAT = Switch(
    "--format", "how lines are printed", metavar="LOG_FORMAT", default=DEFAULT_FORMAT
)
SELECTION = [
    Switch(
        ISSUERS, "which nodes (or the server) the lines come from", metavar="SET_OF_ISSUERS",
        aliases=("--emitters", "--nodes"), default="my-nodes",
    ),
    Switch("--streams", "which streams, a regular expression", metavar="STREAMS_REGEXP"),
    Switch(
        "--platform", "events of the platform: --issuers server --streams platform.*",
        excludes=("--server", *SHORTCUTS),
    ),
    Switch(
        "--server", "output of the server: --issuers server --streams daemon.*",
        excludes=("--platform", *SHORTCUTS),
    ),
]

CHECKPOINT = Arg("checkpoint_name")

COMMANDS = {
    "show": Command(
        show, "print log lines",
        args=[Arg("logline_regexp", optional=True)],
        switches=[
            Switch("--realtime", "go on with live lines, until ctrl-C"),
            Switch(
                "--history", "print stored lines: full, none, or [start]:[end]",
                metavar="HISTORY_RANGE", default="none",
            ),
            FORMAT, *SELECTION,
            Switch("--consoles", "streams of consoles, too"),
            Switch("--json", "print one JSON object a line"),
        ],
    ),
    "wait": Command(
        wait, "wait for log lines", args=[Arg("logline_regexp")],
        switches=[
            Switch(
                "--mode", "ANY: one line ends the wait; ALL: one line of each issuer",
                metavar="LOG_WAIT_MODE", kind=("ANY", "ALL"), default="ANY",
            ),
            Switch(
                "--time-margin", "consider the last seconds, too", metavar="SECONDS", kind=int,
                default=0,
            ),
            Switch(
                "--timeout", "give up after this time", metavar="SECONDS", kind=int, default=-1
            ),
            FORMAT, *SELECTION,
        ],
    ),
    "export": Command(
        export, "write stored log lines to a file",
        args=[Arg("file"), Arg("logline_regexp", optional=True)],
        switches=[
            Switch(
                "--format", "format of the file", metavar="FORMAT",
                kind=("JSONL", "CSV", "PARQUET"), default="JSONL",
            ),
            Switch(
                "--history", "which lines: full, or [start]:[end]", metavar="HISTORY_RANGE",
                default="full",
            ),
            *SELECTION,
        ],
    ),
    "add-checkpoint": Command(
        add_checkpoint, "name a moment, for history ranges", args=[CHECKPOINT],
        switches=[
            Switch(
                "--date", "another moment than now: 'YYYY-MM-DD hh:mm:ss', or relative: -1h",
                metavar="LOG_CHECKPOINT_DATE",
            ),
        ],
    ),
    "remove-checkpoint": Command(
        remove_checkpoint, "forget a named moment", args=[CHECKPOINT]
    ),
    "list-checkpoints": Command(
        list_checkpoints, "print your named moments",
        switches=[Switch("--json", "print JSON for programs")],
    ),
}
