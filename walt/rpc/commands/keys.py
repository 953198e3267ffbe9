"""Keys by which users reach their nodes with ssh programs of their own."""

from __future__ import annotations

from walt.common.sshkeys import MAX_LINE
from walt.rpc import rows
from walt.rpc.arguments import Json, Names, Text
from walt.rpc.base import WaltCommand


class AddKey(WaltCommand):
    """Let a public key into the nodes of the caller, at once into those that are booted.

    `reached` are the nodes that have it now, `missed` those that get it when they boot again.
    """

    commandName = b"cs.keys.add"
    side = "cs"
    arguments = [(b"key", Text(4 * MAX_LINE))]
    response = [(b"fingerprint", Text(100)), (b"reached", Names()), (b"missed", Names())]


class RemoveKey(WaltCommand):
    """Take away a key of the caller, named by its fingerprint or its comment.

    `missed` are the nodes that have it until they boot again.
    """

    commandName = b"cs.keys.remove"
    side = "cs"
    arguments = [(b"key", Text(4 * MAX_LINE))]
    response = [(b"fingerprint", Text(100)), (b"reached", Names()), (b"missed", Names())]


class ListKeys(WaltCommand):
    """The keys of the caller, oldest first."""

    commandName = b"cs.keys.list"
    side = "cs"
    response = [(b"rows", Json(rows.USER_KEYS))]


class NodeHostKey(WaltCommand):
    """The key that every node shows to ssh programs: `name` is its HostKeyAlias, `line` what
    belongs into a file of known hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""

    commandName = b"cs.keys.host"
    side = "cs"
    response = [(b"name", Text(100)), (b"line", Text(4096))]
