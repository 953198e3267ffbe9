"""Calls of web pages: the commands of the schema with their arguments and answers as JSON.

A page is one more client: its calls go through the session of AMP, its policy, its limits and
its responders. Only the boxes become JSON on their way to the page.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import Any

from twisted.protocols import amp

from walt.common.errors import Busy, Denied, Invalid, WaltError
from walt.rpc.arguments import Json
from walt.rpc.base import WaltCommand, python_names
from walt.rpc.commands import session as callbacks
from walt.server.api.session import LocatorFactory, Session
from walt.server.domain.shares import Shares

MAX_CALLS = 100  # of one page in progress
# What gives access outlives a session of a page: it takes the command line.
NOT_FOR_PAGES = (b"cs.access.", b"cs.keys.", b"cs.web.", b"cs.database.")
CALL_BACKS = {
    command.commandName: command for command in (
        callbacks.StdoutWrite, callbacks.StderrWrite, callbacks.SetBusyLabel,
        callbacks.ShowProgress,
    )
}


class JsonCalls(Session):
    """The session of one page of a user.

    `send` gets the JSON of what the page is told: `{"answer": NUMBER, "values": {…}}`,
    `{"error": NUMBER, "code": CODE, "text": TEXT}`, or `{"told": NAME, "values": {…}}` for a
    call-back. Bytes are base 64 there (RFC 4648 §4).
    """

    def __init__(
        self, locators: LocatorFactory, send: Callable[[str], object], *, user: str,
        observe: Callable[[bytes, float, str], object], shares: Shares,
    ) -> None:
        super().__init__(
            locators, frozenset({"cs"}), peer="a web page", account=user, bound=True,
            observe=observe, shares=shares, most_calls=MAX_CALLS + 1,
        )
        self._send = send
        self._called: dict[bytes, type[WaltCommand]] = {}
        self.startReceivingBoxes(self)  # call-backs leave by sendBox
        self.hello("web", "", callbacks.PROTOCOL)

    def call(self, number: int, name: str, arguments: dict[str, Any]) -> None:
        """Serve a call; the answer has its number."""
        ask, wire_name = b"%d" % number, name.encode(errors="replace")
        try:
            if ask in self._called:
                raise Invalid("a call with this number is in progress")
            if len(self._called) >= MAX_CALLS:
                raise Busy(f"{MAX_CALLS} calls of this page are in progress: wait for some")
            if wire_name.startswith(NOT_FOR_PAGES):
                raise Denied(f"{name[:80]} is not for web pages: use the walt command")
            found = self.find(wire_name)
            if found is None:
                raise Invalid(f"there is no command {name[:80]!r}")
            box = amp.Box(_encoded(found[0], arguments, self))
        except WaltError as error:
            self._fail(number, error.code, str(error))
            return
        box.update({amp.COMMAND: wire_name, amp.ASK: ask})
        self._called[ask] = found[0]
        self.ampBoxReceived(box)

    def sendBox(self, box: Any) -> None:
        """Tell the page what another client would be sent."""
        if amp.ANSWER in box:
            ask = box[amp.ANSWER]
            values = _written(self._called.pop(ask).response, box, self)
            self._send(f'{{"answer": {ask.decode()}, "values": {values}}}')
        elif amp.ERROR in box:
            ask = box[amp.ERROR]
            self._called.pop(ask, None)
            self._fail(
                int(ask), box[amp.ERROR_CODE].decode(),
                box[amp.ERROR_DESCRIPTION].decode(errors="replace"),
            )
        else:
            command = CALL_BACKS.get(box.get(amp.COMMAND, b""))
            if command is not None:
                values = _written(command.arguments, box, self)
                name = command.commandName.decode()
                self._send(f'{{"told": {json.dumps(name)}, "values": {values}}}')

    def _fail(self, number: int, code: str, text: str) -> None:
        self._send(json.dumps({"error": number, "code": code, "text": text}))


def _encoded(command: type[WaltCommand], values: dict[str, Any], proto: Any) -> dict[bytes, bytes]:
    """Return the values of a call as AMP carries them. Raises Invalid."""
    known = {name: (wire, argument) for wire, name, argument in python_names(command)}
    box = {}
    for name, value in values.items():
        if name not in known:
            raise Invalid(f"there is no argument {name[:80]!r}")
        wire, argument = known[name]
        if value is None:
            continue
        try:
            if type(argument) is amp.String:  # bytes
                value = b64decode(value, validate=True)
            box[wire] = argument.toStringProto(value, proto)
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise Invalid(f"argument {name} has a wrong type") from None
    return box


def _written(types: Iterable[tuple[bytes, amp.Argument]], box: Any, proto: Any) -> str:
    """Return the values of a box as a JSON object; what is JSON already stays as it is."""
    values = []
    for name, argument in types:
        raw = box.get(name)
        if raw is None:
            continue
        if isinstance(argument, Json):
            text = (b"".join(raw) if isinstance(raw, list) else raw).decode()
        else:
            value = argument.fromStringProto(raw, proto)
            text = json.dumps(b64encode(value).decode() if isinstance(value, bytes) else value)
        values.append(f"{json.dumps(name.decode())}: {text}")
    return "{" + ", ".join(values) + "}"
