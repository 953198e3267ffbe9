"""`walt log`."""

from __future__ import annotations

import sys

from walt.client.errors import Failure
from walt.client.grammar import Arg, Command, Switch
from walt.client.session import Session, Stream, result_status
from walt.client.terminal import Terminal, both_terminals, confirm

DEFAULT_FORMAT = "{timestamp:%H:%M:%S.%f} {issuer}.{stream} -> {line}"
LARGE = 1000
HINT = "See `walt help show log-show`."


def show(
    realtime, history, format, issuers, streams, platform, server, json, logline_regexp
):
    """Print stored lines, then live ones."""
    from walt.client.history import parse_range

    history = None if history.lower() == "none" else history
    if history is None and not realtime:
        print(f"Use --history, --realtime, or both. {HINT}")
        return 0
    if not _compiles(streams) or not _compiles(logline_regexp):
        return 0
    if platform:
        issuers, streams = "server", "platform.*"
    elif server:
        issuers, streams = "server", "daemon.*"
    query = {"issuers": issuers, "streams": streams, "lines": logline_regexp}
    session = Session(Terminal())
    if history is not None:
        query["start"], query["end"] = parse_range(session, history)
        if logline_regexp is None and both_terminals() and not _confirmed(session, query):
            return 0
    session.close()
    stream = Stream(
        "REQ_DUMP_LOGS", dict(query, history=history is not None, realtime=realtime)
    )
    return _print_lines(stream, _json_line if json else _formatter(format))


def _compiles(expression):
    if expression is None:
        return True
    import re

    try:
        re.compile(expression)
    except re.error as error:
        print(f"{expression!r} is not a valid regular expression: {error}")
        return False
    return True


def _confirmed(session, query):
    count = int(session.call("cs.logs.count", query=query)[b"count"])
    if count <= LARGE:
        return True
    print(f"This will print about {count} log lines.")
    return confirm()


def _print_lines(stream, formatted):
    from json import loads

    from walt.common import frames

    pending, write = b"", sys.stdout.write
    try:
        while True:
            received = stream.received()
            if received is None:
                raise Failure("communication issue: the server closed the connection")
            for kind, payload in received:
                if kind == frames.DATA:
                    *lines, pending = (pending + payload).split(b"\n")
                    write("".join([formatted(*loads(line)) + "\n" for line in lines]))
                    sys.stdout.flush()
                elif kind == frames.MESSAGE:
                    print(payload.decode(errors="replace"), file=sys.stderr)
                elif kind == frames.RESULT:
                    return result_status(payload)
    except KeyboardInterrupt:
        print()
        return 1


def _formatter(template):
    from datetime import datetime

    moment = datetime.fromtimestamp
    if template == DEFAULT_FORMAT:
        return lambda timestamp, issuer, stream, line: (
            f"{moment(timestamp):%H:%M:%S.%f} {issuer}.{stream} -> {line}"
        )

    def formatted(timestamp, issuer, stream, line):
        try:
            return template.format(
                timestamp=moment(timestamp), issuer=issuer, stream=stream, line=line
            )
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            raise Failure(
                f"the log format cannot be applied ({error}); check --format."
                " See `walt help show log-format`."
            ) from None

    return formatted


def _json_line(timestamp, issuer, stream, line):
    from json import dumps

    return dumps({"timestamp": timestamp, "issuer": issuer, "stream": stream, "line": line})


ISSUERS = "--issuers"
SHORTCUTS = (ISSUERS, "--streams")

COMMON = [
    Switch("--format", "how lines are printed", metavar="LOG_FORMAT", default=DEFAULT_FORMAT),
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
            *COMMON,
            Switch("--json", "print one JSON object a line"),
        ],
    ),
}
