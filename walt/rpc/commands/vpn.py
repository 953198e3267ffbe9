"""Keys of VPN nodes, for tools of the server (spec server §7.4)."""

from __future__ import annotations

from walt.rpc import rows
from walt.rpc.arguments import Json, Text
from walt.rpc.base import WaltCommand


class ListVpnKeys(WaltCommand):
    """Every key that the VPN ever had, by identity."""

    commandName = b"ss.vpn.keys"
    side = "ss"
    response = [(b"rows", Json(rows.VPN_KEYS))]


class RevokeVpnKey(WaltCommand):
    """Refuse the certificates of a board from now on, and end its tunnel.

    NOT_FOUND for an identity that no key has, CONFLICT for one that was revoked before.
    """

    commandName = b"ss.vpn.revoke"
    side = "ss"
    arguments = [(b"certid", Text(100))]


class GetVpnSettings(WaltCommand):
    """Where boards come in: the address of the server's own sshd, and its authority.

    `authority` is the public key of the authority and `host_keys` are those of our sshd, one
    line each; empty where the VPN is not configured.
    """

    commandName = b"ss.vpn.settings"
    side = "ss"
    response = [(b"settings", Json(rows.VPN_SETTINGS))]
