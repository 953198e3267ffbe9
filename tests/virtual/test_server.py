"""What is asked of the server, and every answer that it could give."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir
from walt.common.errors import (
    CommandFailed,
    Invalid,
    LimitExceeded,
    NotFound,
    Unavailable,
    WaltError,
)
from walt.common.names import is_device_name
from walt.virtual.api import NodeInfo, call, parse_answer, parse_info, register
from walt.virtual.fetch import ServerFiles
from walt.virtual.script import Location
from walt.virtual.sockets import Server

MAC, IP = "52:54:00:00:00:01", "192.168.1.9"
HTTP, TFTP = Location("http", "/boot/a b"), Location("tftp", "/start.ipxe")
RECORD = {"name": "vnode1", "netmask": "255.255.255.0", "gateway": "", "conf": {"ram": "1G"}}

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Exchange:
    """One answer of a server to whoever connects; notes what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.asked = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read, answer, read, answer…, and close."""
        for answer in self.answers:
            self.asked += await reader.read(4096)
            writer.write(answer)
            await writer.drain()
        writer.close()


def talk(exchange: Answer, work: Callable[[Server], Awaitable[Any]]) -> Any:
    """Let some work meet a server on a port of its own."""
    async def run() -> Any:
        answering: list[asyncio.Future[None]] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answering.append(asyncio.ensure_future(exchange(reader, writer)))

        listening = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with listening:
            try:
                return await work(Server("127.0.0.1", None, port, port, port))
            finally:
                await asyncio.gather(*answering, return_exceptions=True)

    return asyncio.run(run())


class FetchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = short_dir(self)

    def text(self, where: Location, *answers: bytes) -> str:
        """Fetch a script of 100 bytes at most."""
        self.exchange = Exchange(*answers)
        found: str = talk(self.exchange, lambda server: ServerFiles(
            server, MAC, IP, self.directory
        ).text(where, 100))
        return found

    def test_http(self) -> None:
        """The request names the node; the answer is as long as it says."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd"
        self.assertEqual(self.text(HTTP, answer), "abc")
        lines = self.exchange.asked.decode().split("\r\n")
        self.assertEqual(lines[0], f"GET /boot/a%20b?node_ip={IP} HTTP/1.0")

    def test_http_refused(self) -> None:
        """Absent, broken, cut, too long, or no text."""
        for answer, error in (
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno.", NotFound),
            (b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nno.", Unavailable),
            (b"HTTP/1.1 200 OK\r\n\r\nabc", Unavailable),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc", Unavailable),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Unavailable),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, LimitExceeded),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff", Invalid),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\0x", Invalid),
            (b"SSH-2.0\r\n", Unavailable), (b"", Unavailable), (b"x" * 200_000, Unavailable),
        ):
            self.assertRaises(error, self.text, HTTP, answer)

    def test_request_12(self) -> None:
        """The request is what the server of WalT 10 reads; sizes rule the answer."""
        self.assertEqual(self.text(TFTP, b"READY\n", b"OK\n3\nabcd"), "abc")
        line, parameters = self.exchange.asked.split(b"\n", 1)
        self.assertEqual(line, b"12")
        self.assertEqual(pickle.loads(parameters), {"node_mac": MAC, "path": "/start.ipxe"})

    def test_request_12_refused(self) -> None:
        """As over HTTP."""
        for answers, error in (
            ((b"READY\n", b"NO SUCH FILE\n"), NotFound), ((b"BUSY\n",), Unavailable),
            ((b"READY\n", b"OK\nx\n"), Unavailable), ((b"READY\n", b"OK\n5\nabc"), Unavailable),
            ((b"READY\n", b"OK\n101\n"), LimitExceeded), ((b"READY\n", b"NO"), Unavailable),
        ):
            self.assertRaises(error, self.text, TFTP, *answers)

    def test_stored(self) -> None:
        """Files of scripts get names of ours."""
        exchange = Exchange(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab")
        path: Path = talk(exchange, lambda server: ServerFiles(
            server, MAC, IP, self.directory
        ).store(Location("http", "/etc/passwd")))
        self.assertEqual(path, self.directory / "file-1")
        self.assertEqual(path.read_bytes(), b"ab")

    def test_nobody(self) -> None:
        """No server at all."""
        files = ServerFiles(Server("127.0.0.1", None, 1, 1, 1), MAC, IP, self.directory)
        self.assertRaises(Unavailable, asyncio.run, files.text(HTTP, 100))


class CallTests(SynchronousTestCase):
    def test_registration(self) -> None:
        """The calls are literals of the line protocol; the record comes back checked."""
        asked = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readline() + await reader.readline())
            writer.write(b"10.0\n")
            line = await reader.readline()
            asked.append(line)
            writer.write(
                f"{('RESULT', RECORD if b'get_device_info' in line else None)!r}\n".encode()
            )
            asked.append(await reader.readline())
            writer.close()

        info = talk(serve, lambda server: register(server, "pc-x86-64", IP, MAC, "it's"))
        self.assertEqual(info, NodeInfo("vnode1", "255.255.255.0", "", {"ram": "1G"}))
        self.assertEqual(asked[:5], [  # the last connection may be closed first
            b"10\nVSAPI\n",
            b"('API_CALL', 'register_device', ('walt.node.pc-x86-64', '', '192.168.1.9',"
            b" '52:54:00:00:00:01', \"it's\"), {})\n", b"('CLOSE',)\n",
            b"10\nVSAPI\n", b"('API_CALL', 'get_device_info', ('52:54:00:00:00:01',), {})\n",
        ])

    def test_broken_servers(self) -> None:
        """No version, no answer, an endless one."""
        for answers, error in (
            ((b"",), Unavailable), ((b"10.0\n", b""), Unavailable),
            ((b"10.0\n" + b"x" * 100_000,), Unavailable),
            ((b"10.0\n('RESULT', '" + b"x" * 20_000 + b"')\n",), Unavailable),
            ((b"10.0\n('EXCEPTION', 'not you')\n",), CommandFailed),
            ((b"10.0\n__import__('os')\n",), Invalid),
        ):
            self.assertRaises(
                error, talk, Exchange(*answers), lambda server: call(server, "get_device_info", MAC)
            )

    @given(st.binary(max_size=100))
    def test_any_answer(self, line: bytes) -> None:
        """Any line is an answer, or refused."""
        try:
            parse_answer(line)
        except WaltError:
            pass

    values = st.none() | st.text(max_size=20) | st.integers() | st.dictionaries(
        st.text(max_size=5) | st.integers(), st.text(max_size=5)
    ) | st.sampled_from(("255.255.255.0", "vnode1"))

    @given(st.none() | st.integers() | st.dictionaries(
        st.sampled_from(("name", "netmask", "gateway", "conf")), values
    ))
    def test_any_record(self, value: Any) -> None:
        """Any record gives checked values, or is refused."""
        try:
            info = parse_info(value)
        except Invalid:
            return
        self.assertTrue(info.name == "" or is_device_name(info.name))
        for address in (info.netmask, info.gateway):
            self.assertTrue(address == "" or IPv4Address(address))
        self.assertTrue(all(isinstance(key, str) for key in info.conf))
