"""Commands on a node, for scripts: their output and exit status are values."""

from __future__ import annotations

import json
import threading
import time
from collections import deque, namedtuple

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.scripting.columns import Frame
from walt.client.stream import LOST, NODE_COMMAND, Stream, result_status
from walt.common import frames

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MOST = 64 << 20  # bytes of output that are kept
JOURNAL = 10_000  # commands that are remembered
TOLD = 10_000  # characters of each output that are remembered
Command = namedtuple(
    "Command",
    ("node", "command", "started", "seconds", "outcome", "status", "output", "error"),
)
COLUMNS = dict(zip(Command._fields, (
    "word", "word", "moment", "number", "word", "whole", "text", "text",
)))
_journal: deque[Command] = deque(maxlen=JOURNAL)
LOOK = 0.1  # seconds between two looks whether a program should be left


class Result(namedtuple("Result", ("status", "output", "error"))):
    """How a command ended: its exit status, and the texts that it printed."""

    __slots__ = ()

    def json(self) -> Any:
        """Return the JSON value that the command printed. Raises ValueError."""
        return json.loads(self.output)


def commands_of(nodes: Iterable[str]) -> Frame:
    """Return what `run` of this program ran on nodes of these names, oldest first.

    `started` is epoch seconds of this machine; `outcome` is `ended`, with the status of the
    command, or `timeout`, `interrupted`, or `failed`, with status -1. Of each output the first
    10,000 characters are kept, and the last 10,000 commands.
    """
    wanted = set(nodes)
    return Frame(COLUMNS, [command for command in list(_journal) if command.node in wanted])


class TooMuch(Failure):
    """A command printed more than is kept."""


class _Command:
    """A command of the shell of a node, whose input is empty, and what it printed so far."""

    def __init__(self, node: str, command: str) -> None:
        self._printed = {frames.DATA: bytearray(), frames.MESSAGE: bytearray()}
        self._stream = Stream(NODE_COMMAND, {"node": node, "command": command})
        self._stream.send(frames.END)

    def texts(self) -> list[str]:
        """Return output and error."""
        return [bytes(output).decode(errors="replace") for output in self._printed.values()]

    def turn(self, until: float | None) -> Result | None:
        """Wait for something; return the result when it ended.

        Raises TimeoutError at the moment `until`, Failure when the connection breaks (the
        command may have run), or when it printed too much.
        """
        received = self._stream.received(until)
        if received is None:
            raise Failure(LOST)
        for kind, payload in received:
            if kind == frames.RESULT:
                return Result(result_status(payload), *self.texts())
            if kind in self._printed:
                self._printed[kind] += payload
        if sum(map(len, self._printed.values())) > MOST:
            raise TooMuch(
                f"the command printed more than {MOST >> 20} MiB: write that into a file of the"
                " node, and get the file"
            )
        return None

    def close(self) -> None:
        """Leave it: what still runs is ended."""
        self._stream.close()


def run(node: str, command: str, time_limit: float | None) -> Result:
    """Run a command of the shell on a booted node, once; its input is empty.

    Raises TimeoutException after `time_limit` seconds: the command is ended. Raises Failure
    when the connection breaks; the command may have run.
    """
    began, clock = time.time(), time.monotonic()
    outcome, result = "interrupted", Result(-1, "", "")
    try:
        result = _run(node, command, None if time_limit is None else clock + time_limit)
        outcome = "ended"
        return result
    except TimeoutException:
        outcome = "timeout"
        raise
    except Failure:
        outcome = "failed"
        raise
    finally:
        _journal.append(Command(
            node, command, began, time.monotonic() - clock, outcome, result.status,
            result.output[:TOLD], result.error[:TOLD],
        ))


def _run(node: str, command: str, until: float | None) -> Result:
    running = _Command(node, command)
    try:
        while True:
            result = running.turn(until)
            if result is not None:
                return result
            if until is not None and time.monotonic() >= until:
                raise TimeoutException
    except TimeoutError:
        raise TimeoutException from None
    finally:
        running.close()


class Program:
    """A command that runs on a node while the script goes on; a context that ends it."""

    def __init__(self, node: str, command: str) -> None:
        self._command = _Command(node, command)
        self._change = threading.Condition()
        self._left = False
        self._result: Result | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="walt-program", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            while not self._left and self._result is None:
                try:
                    self._result = self._command.turn(time.monotonic() + LOOK)
                except TimeoutError:
                    continue
                with self._change:
                    self._change.notify_all()
        except Exception as error:
            self._failure = error
        finally:
            self._command.close()
            with self._change:
                self._change.notify_all()

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._command.texts()[0]

    @property
    def error(self) -> str:
        """What it printed so far on its error output."""
        return self._command.texts()[1]

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._result is None and self._failure is None and not self._left

    def ready(self, text: str, timeout: float | None = None) -> None:
        """Return when it has printed a text, on either output.

        Raises TimeoutException after `timeout` seconds, Failure when it ended before.
        """

        def seen() -> bool:
            return any(text in printed for printed in self._command.texts())

        self._wait(lambda: seen() or not self.running, timeout)
        if not seen():
            self._raise()
            told = f"the program ended before it printed {text!r}"
            if self._result is not None:
                told += f", with status {self._result.status}: {self.error[-500:]}"
            raise Failure(told)

    def wait(self, timeout: float | None = None) -> Result:
        """Return its result when it has ended. Raises TimeoutException, Failure; it goes on then.
        """
        self._wait(lambda: not self.running, timeout)
        self._raise()
        if self._result is None:
            raise Failure("the program was ended before it had a result")
        return self._result

    def stop(self) -> None:
        """End it, with all processes that it started in the foreground."""
        self._left = self._result is None and self._failure is None
        self._thread.join()

    def _wait(self, condition: Any, timeout: float | None) -> None:
        with self._change:
            if not self._change.wait_for(condition, timeout):
                raise TimeoutException

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
