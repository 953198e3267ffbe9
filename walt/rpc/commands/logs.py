"""Commands about logs; the lines themselves travel on the stream port."""

from __future__ import annotations

from twisted.protocols import amp

from walt.rpc.arguments import Json, Text
from walt.rpc.base import WaltCommand


class CountLogs(WaltCommand):
    """How many stored lines match a query (the JSON object of the log stream)."""

    commandName = b"cs.logs.count"
    side = "cs"
    arguments = [(b"query", Json())]
    response = [(b"count", amp.Integer())]


class CheckpointTime(WaltCommand):
    """The epoch time of a checkpoint of the caller."""

    commandName = b"cs.logs.checkpoint_time"
    side = "cs"
    arguments = [(b"name", Text(256))]
    response = [(b"time", amp.Float())]
