"""What one tab of a browser wants: topics that it watches, calls, streams; one socket for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import Invalid, LimitExceeded, WaltError
from walt.common.texts import load_json
from walt.server.domain.access.web_model import WebSession
from walt.server.domain.topics import IViewer, Topic
from walt.server.http.websocket import User, binary_message, text_message

_log = Logger()

MAX_STREAMS = 8  # of one tab
NUMBERS = 1 << 31  # of calls: less than this
BAD_MESSAGE, NOT_IN = 4400, 4401  # codes for the close of the socket (RFC 6455 §7.4.2)


class Calls(Protocol):
    """Calls of the schema for one tab."""

    def call(self, number: int, name: str, arguments: dict[str, Any]) -> None:
        """Serve a call; the answer is sent."""

    def end(self) -> None:
        """The tab is gone."""


class Stream(Protocol):
    """One request of the stream port for one tab."""

    def begin(self, request: str, parameters: dict[str, Any]) -> None:
        """Say what is wanted. Raises WaltError."""

    def received(self, data: bytes) -> None:
        """A frame of the tab."""

    def drained(self) -> None:
        """The tab takes again what it is sent."""

    def end(self) -> None:
        """The tab is gone, or wants no more."""


MakeCalls = Callable[[WebSession, Callable[[str], object]], Calls]
MakeStream = Callable[
    [WebSession, Callable[[bytes], object], Callable[[], object], Callable[[], bool]], Stream
]


@implementer(IViewer)
class Tab(User):
    """One socket of one session; `greeting` is what a tab is told first.

    Texts of the browser are JSON objects: `{"watch": [TOPIC…]}`, `{"call": NUMBER, "command",
    "arguments"}`, `{"open": STREAM, "request", "parameters"}`, `{"close": STREAM}`. Its data is
    the number of a stream (1 octet), then a frame.
    """

    def __init__(
        self, session: WebSession, topics: Mapping[str, Topic], calls: MakeCalls,
        streams: MakeStream, greeting: Mapping[str, object],
        gone: Callable[[Tab], object] = lambda tab: None,
    ) -> None:
        self.session = session
        self._topics = topics
        self._make_calls, self._make_stream = calls, streams
        self._greeting = greeting
        self._gone = gone
        self._calls: Calls | None = None
        self._watched: set[str] = set()
        self._streams: dict[int, Stream] = {}
        self._over = False

    @property
    def late(self) -> bool:
        """Whether the browser does not take what it is sent."""
        return self.socket.late

    def send(self, message: bytes) -> None:
        """Send what is encoded already."""
        self.socket.send(message)

    def tell(self, text: str) -> None:
        """Send a JSON text."""
        self.socket.send(text_message(text))

    def opened(self) -> None:
        try:
            self._calls = self._make_calls(self.session, self.tell)
        except WaltError as error:
            self.socket.close(BAD_MESSAGE, str(error)[:100])
            return
        self.tell(json.dumps({"hello": self._greeting}))

    def text(self, message: str) -> None:
        if self._calls is None:
            return
        try:
            value = load_json(message)
            if not isinstance(value, dict):
                raise Invalid("a message is one JSON object")
            self._serve(value)
        except (ValueError, Invalid):
            self.socket.close(BAD_MESSAGE, "what is this?")

    def _serve(self, value: dict[str, Any]) -> None:
        if "watch" in value:
            self._watch(value["watch"])
        elif "call" in value:
            number, name = _number(value["call"], NUMBERS), value.get("command")
            arguments = value.get("arguments", {})
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise Invalid("a call has a command and arguments")
            assert self._calls is not None
            self._calls.call(number, name, arguments)
        elif "open" in value:
            self._open(_number(value["open"], 256), value.get("request"), value.get("parameters"))
        elif "close" in value:
            stream = self._streams.pop(_number(value["close"], 256), None)
            if stream is not None:
                stream.end()
        else:
            raise Invalid("unknown message")

    def _watch(self, names: Any) -> None:
        if not isinstance(names, list) or not all(
            isinstance(name, str) and name in self._topics for name in names
        ):
            raise Invalid("unknown topic")
        wanted = set(names)
        for name in self._watched - wanted:
            self._topics[name].leave(self)
        fresh, self._watched = wanted - self._watched, wanted
        for name in sorted(fresh):
            self._topics[name].watch(self)

    def _open(self, number: int, request: Any, parameters: Any) -> None:
        if not isinstance(request, str) or not isinstance(parameters, dict):
            raise Invalid("a stream has a request and parameters")
        if number in self._streams:
            raise Invalid("this number is in use")
        try:
            if len(self._streams) >= MAX_STREAMS:
                raise LimitExceeded(f"a page has {MAX_STREAMS} streams at most")
            stream = self._streams[number] = self._make_stream(
                self.session, lambda data: self.send(binary_message(bytes([number]) + data)),
                lambda: self._ended(number, stream), lambda: self.late,
            )
            stream.begin(request, parameters)
        except WaltError as error:
            opened = self._streams.pop(number, None)
            if opened is not None:
                opened.end()
            self.tell(json.dumps({"ended": number, "code": error.code, "text": str(error)}))

    def _ended(self, number: int, stream: Stream) -> None:
        if self._streams.get(number) is stream:
            del self._streams[number]
            self.tell(json.dumps({"ended": number}))

    def data(self, message: bytes) -> None:
        if message[:1] and (stream := self._streams.get(message[0])) is not None:
            stream.received(message[1:])

    def drained(self) -> None:
        for name in sorted(self._watched):
            self._topics[name].drained(self)
        for stream in list(self._streams.values()):
            stream.drained()

    def end(self) -> None:
        """The session is over."""
        self.socket.close(NOT_IN, "the session is over")
        self.lost()

    def lost(self) -> None:
        for name in self._watched:
            self._topics[name].leave(self)
        self._watched = set()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end()
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.end()
        if not self._over:
            self._over = True
            self._gone(self)


def _number(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise Invalid("a number is missing")
    return value
