"""Commands about logs; the lines themselves travel on the stream port."""

from __future__ import annotations

from walt.rpc import rows
from walt.rpc.arguments import Float, Integer, Json, Names, Text
from walt.rpc.base import WaltCommand


class CountLogs(WaltCommand):
    """How many stored lines match a query (the JSON object of the log stream)."""

    commandName = b"cs.logs.count"
    side = "cs"
    arguments = [(b"query", Json())]
    response = [(b"count", Integer())]


class LogIssuers(WaltCommand):
    """Develop a set of nodes and the server into sorted names."""

    commandName = b"cs.logs.issuers"
    side = "cs"
    arguments = [(b"issuers", Text(1 << 20))]
    response = [(b"names", Names())]


class AddCheckpoint(WaltCommand):
    """Name a moment of the caller (epoch seconds; now without it); the moment is answered."""

    commandName = b"cs.logs.add_checkpoint"
    side = "cs"
    arguments = [(b"name", Text(256)), (b"time", Float(optional=True))]
    response = [(b"time", Float())]


class RemoveCheckpoint(WaltCommand):
    """Forget a checkpoint of the caller."""

    commandName = b"cs.logs.remove_checkpoint"
    side = "cs"
    arguments = [(b"name", Text(256))]


class ListCheckpoints(WaltCommand):
    """The checkpoints of the caller by time: [[epoch seconds, name]]."""

    commandName = b"cs.logs.list_checkpoints"
    side = "cs"
    response = [(b"checkpoints", Json(rows.CHECKPOINTS))]


class CheckpointTime(WaltCommand):
    """The epoch time of a checkpoint of the caller."""

    commandName = b"cs.logs.checkpoint_time"
    side = "cs"
    arguments = [(b"name", Text(256))]
    response = [(b"time", Float())]
