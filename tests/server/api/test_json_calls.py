"""Calls of pages: JSON in and out, the same responders, the same errors."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Conflict, LimitExceeded
from walt.rpc.arguments import Float, Integer, Json, Text
from walt.rpc.base import WaltCommand
from walt.server.api.json_calls import MAX_CALLS, JsonCalls
from walt.server.domain.requester import IRequester
from walt.server.domain.shares import Shares


class Say(WaltCommand):
    """Say something."""

    commandName = b"cs.test.say"
    side = "cs"
    arguments = [(b"text", Text(10)), (b"data", amp.String(optional=True)),
                 (b"port", Integer(optional=True)), (b"at", Float(optional=True))]
    response = [(b"rows", Json()), (b"data", amp.String()), (b"count", amp.Integer())]


class Wait(WaltCommand):
    """Wait for what a test says."""

    commandName = b"cs.test.wait"
    side = "cs"
    many = True
    response: list[tuple[bytes, amp.Argument]] = []


class Responder(amp.CommandLocator):
    """Answers these."""

    def __init__(self, requester: IRequester) -> None:
        self.requester = requester
        self.waiting: list[Deferred[dict[str, Any]]] = []
        self.cancelled = 0

    def cancel(self, waiting: Deferred[dict[str, Any]]) -> None:
        """Count an end."""
        self.cancelled += 1

    @Say.responder
    def say(
        self, text: str, data: bytes | None = None, port: int | None = None,
        at: float | None = None,
    ) -> dict[str, Any]:
        if text == "no":
            raise Conflict("that is taken")
        self.requester.stdout(f"{self.requester.username}: {text}")
        return {"rows": [{"a": None}], "data": data or b"", "count": 7}

    @Wait.responder
    def wait(self) -> Deferred[dict[str, Any]]:
        self.waiting.append(Deferred(self.cancel))
        return self.waiting[-1]


class JsonCallsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sent: list[Any] = []
        self.observed: list[tuple[bytes, str]] = []
        self.shares = Shares(1, "sessions")
        self.calls = self.make()

    def make(self) -> JsonCalls:
        """Return the session of a page."""
        def locators(session: Any) -> list[amp.CommandLocator]:
            self.responder = Responder(session)
            return [self.responder]

        return JsonCalls(
            locators, lambda text: self.sent.append(json.loads(text)), user="ann",
            observe=lambda name, seconds, code: self.observed.append((name, code)),
            shares=self.shares,
        )

    def test_answers(self) -> None:
        """Values of all kinds; what the server says meanwhile."""
        data = base64.b64encode(b"\0\xff").decode()
        self.calls.call(3, "cs.test.say", {"text": "n\u00e9", "data": data})
        self.assertEqual(self.sent, [
            {"told": "stdout.write", "values": {"text": "ann: n\u00e9\n"}},
            {"answer": 3, "values": {"rows": [{"a": None}], "data": data, "count": 7}},
        ])
        self.assertEqual(self.observed, [(b"cs.test.say", "")])

    def test_errors(self) -> None:
        """Those of responders, of arguments, of policy."""
        for name, arguments, code in (
            ("cs.test.say", {"text": "no"}, "CONFLICT"), ("cs.test.say", {}, "INVALID"),
            ("cs.test.say", {"text": 1}, "INVALID"), ("cs.test.say", {"text": "x" * 11}, "INVALID"),
            ("cs.test.say", {"text": "a", "data": "*"}, "INVALID"),
            ("cs.test.say", {"text": "a", "port": float("inf")}, "INVALID"),
            ("cs.test.say", {"text": "a", "port": float("nan")}, "INVALID"),
            ("cs.test.say", {"text": "a", "at": 10 ** 400}, "INVALID"),
            ("cs.test.say", {"text": "a", "more": 1}, "INVALID"), ("cs.test.no", {}, "INVALID"),
            ("cs.access.renew", {}, "DENIED"), ("cs.web.invite", {}, "DENIED"),
            ("cs.keys.add", {}, "DENIED"),
        ):
            self.calls.call(1, name, arguments)
            self.assertEqual((self.sent[-1]["error"], self.sent[-1]["code"]), (1, code), name)

    def test_limits(self) -> None:
        """Calls in progress; sessions of a user; the end of a page ends what it waits for."""
        for number in range(MAX_CALLS):
            self.calls.call(number, "cs.test.wait", {})
        self.calls.call(5, "cs.test.wait", {})
        self.calls.call(MAX_CALLS, "cs.test.wait", {})
        self.assertEqual([one["code"] for one in self.sent], ["INVALID", "BUSY"])
        self.responder.waiting[0].callback({})
        self.assertEqual(self.sent[-1], {"answer": 0, "values": {}})
        first = self.responder
        self.assertRaises(LimitExceeded, self.make)
        self.calls.end()
        self.assertEqual(first.cancelled, MAX_CALLS - 1)
        self.make()
