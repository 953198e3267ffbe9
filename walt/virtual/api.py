"""Calls of VSAPI: a node announces itself and learns what it is (spec node-protocols §7.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from walt.common.errors import CommandFailed, Invalid, Unavailable
from walt.common.literals import MAX_LINE, parse
from walt.common.names import is_device_name
from walt.virtual.sockets import Server, connected, read_line


@dataclass(frozen=True)
class NodeInfo:
    """What the server knows of a node; empty texts where it says nothing."""

    name: str = ""
    netmask: str = ""
    gateway: str = ""
    conf: Mapping[str, Any] = field(default_factory=dict)


def parse_answer(line: bytes) -> Any:
    """Return the value of `('RESULT', value)`.

    Raises CommandFailed for an exception of the server, Invalid for anything else.
    """
    answer = parse(line)
    if isinstance(answer, tuple) and len(answer) == 2:
        if answer[0] == "RESULT":
            return answer[1]
        if answer[0] == "EXCEPTION" and isinstance(answer[1], str):
            raise CommandFailed(f"the server refused: {answer[1][:500]}")
    raise Invalid("the server sent an invalid answer")


def parse_info(value: Any) -> NodeInfo:
    """Return a node's record; an unknown device has an empty one. Raises Invalid."""
    if value is None:
        return NodeInfo()
    if not isinstance(value, dict):
        raise Invalid("the server sent an invalid record")
    conf = value.get("conf")
    name = value.get("name")
    return NodeInfo(
        name if isinstance(name, str) and is_device_name(name) else "",
        _address(value.get("netmask")), _address(value.get("gateway")),
        {key: setting for key, setting in conf.items() if isinstance(key, str)}
        if isinstance(conf, dict) else {},
    )


def _address(value: Any) -> str:
    if value in (None, ""):
        return ""
    try:
        return str(IPv4Address(value if isinstance(value, str) else ""))
    except AddressValueError:
        raise Invalid("the server gave a record with a wrong address") from None


async def call(server: Server, method: str, *arguments: str) -> Any:
    """Call a method; return its value. Raises Unavailable, CommandFailed, Invalid."""
    async with connected(server, server.rpc_port) as (reader, writer):
        writer.write(b"10\nVSAPI\n")
        await read_line(reader)
        writer.write(f"{('API_CALL', method, arguments, {})!r}\n".encode())
        line = await read_line(reader)
        if len(line) > MAX_LINE:
            raise Unavailable(f"the answer to {method} is too long")
        writer.write(b"('CLOSE',)\n")
        return parse_answer(line)


async def register(server: Server, model: str, ip: str, mac: str, name: str) -> NodeInfo:
    """Announce a node, as a DHCP exchange would; return what the server knows of it."""
    await call(server, "register_device", f"walt.node.{model}", "", ip, mac, name)
    return parse_info(await call(server, "get_device_info", mac))
