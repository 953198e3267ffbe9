"""`walt-server-trackexec-replay` and `-analyse`: read what the server recorded of its execution."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from walt.common.errors import in_words
from walt.server.trackexec import analyse
from walt.server.trackexec.record import Record, RecordError
from walt.server.trackexec.screen import show, visible
from walt.server.trackexec.session import Refused, Session
from walt.server.trackexec.sources import Source

DIRECTORY = "the record of a process, as /var/log/walt/trackexec/latest/server"


def replay_main() -> None:
    """Run `walt-server-trackexec-replay`."""
    parser = argparse.ArgumentParser(
        prog="walt-server-trackexec-replay",
        description="Walk through what the server executed. On a terminal keys are obeyed (h shows"
        " them); otherwise each line of the standard input is a command.",
    )
    parser.add_argument("directory", type=Path, help=DIRECTORY)
    options = parser.parse_args()
    sys.exit(_with(options.directory, _replay))


def _replay(record: Record) -> int:
    session = Session(record)
    if sys.stdin.isatty() and sys.stdout.isatty():
        show(session)
        return 0
    status = 0
    print(session.position)
    for line in sys.stdin:
        command = line.strip()
        if command == "q":
            break
        if not command:
            continue
        try:
            told = session.run(command)
        except Refused as error:
            print(error, file=sys.stderr)
            status = 2
            continue
        if told:
            print(told)
        print(_at(session))
    return status


def _at(session: Session) -> str:
    source = session.replay.source
    text = visible(source.text(session.replay.line).strip()) if source else ""
    return f"{session.position}: {text}" if text else session.position


def analyse_main() -> None:
    """Run `walt-server-trackexec-analyse`."""
    parser = argparse.ArgumentParser(
        prog="walt-server-trackexec-analyse",
        description="Tell where the server spent its time: the hottest lines, functions,"
        " coroutines or steps of workflows, or one file with what each line took.",
    )
    parser.add_argument("directory", type=Path, help=DIRECTORY)
    parser.add_argument(
        "--num-items", type=_positive, metavar="N", help="rows of the table (default: 20)"
    )
    parser.add_argument(
        "--sort-column", choices=analyse.SORTS, help="default: cumulated-runtime"
    )
    parser.add_argument("--by", choices=TABLES, help="what a row is (default: line)")
    parser.add_argument(
        "--file-id", type=_positive, metavar="N", help="show this file, as the table numbers it"
    )
    options = parser.parse_args()
    if options.file_id is not None and (
        options.num_items is not None or options.sort_column is not None or options.by is not None
    ):
        parser.error("--file-id shows a whole file: leave --num-items, --sort-column, --by out")

    def work(record: Record) -> int:
        if options.file_id is not None:
            return _listing(record, options.file_id)
        rows = TABLES[options.by or "line"](record)
        column = options.sort_column or "cumulated-runtime"
        _table(record, analyse.hottest(rows, column, options.num_items or 20))
        return 0

    sys.exit(_with(options.directory, work))


TABLES: dict[str, Callable[[Record], list[analyse.Row]]] = {
    "line": analyse.by_line,
    "function": analyse.by_function,
    "coroutine": lambda record: analyse.by_function(record, only_waiting=True),
    "step": analyse.by_step,
}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _table(record: Record, rows: list[analyse.Row]) -> None:
    print("file-id  cumulated    average      count  location, code")
    for row in rows:
        source = record.source(row.file)
        code = f"{row.name}()" if row.name else source.text(row.line).strip()
        print(
            f"{row.file:7}  {row.seconds:8.3f}s  {row.average * 1e6:7.1f}us  {row.count:9}"
            f"  {source.short}:{row.line}  {visible(code)}"
        )


def _listing(record: Record, number: int) -> int:
    found: Source = record.source(number)
    if not found.lines:
        print(f"no file has the number {number} in this record", file=sys.stderr)
        return 2
    rows = {row.line: row for row in analyse.by_line(record) if row.file == number}
    print(found.short)
    for line, text in enumerate(found.lines, 1):
        row = rows.get(line)
        facts = f"{row.seconds:8.3f}s {row.count:9}" if row else " " * 19
        print(f"{facts} {line:5} {visible(text)}")
    return 0


def _with(directory: Path, work: Callable[[Record], int]) -> int:
    """Do something with a record; return the exit status."""
    try:
        with closing(Record(directory)) as record:
            return work(record)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read has enough; nothing is left to be told at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"the record cannot be read: {in_words(error)}", file=sys.stderr)
        return 1
