"""`/boot/<path>[?node_ip=]`: boot files of nodes over HTTP (spec server §1.4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import CACHED
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from walt.common.errors import NotFound
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.network_services.interfaces import BootFile, IBootFiles
from walt.server.http.answers import answer_error
from walt.server.http.policy import Readers
from walt.server.http.sending import send

_log = Logger()

Watch = Callable[[str, str, bool], object]
Prepare = Callable[[str], "Deferred[None] | None"]


def peer_address(request: IRequest) -> str:
    """Return the address of the requester, an IPv6-mapped one in its IPv4 form."""
    host: Any = request.getClientAddress()
    text = str(getattr(host, "host", ""))
    address = parse_address(text)
    return str(address) if address is not None else text


def tag(found: BootFile) -> bytes:
    """Return an entity tag (RFC 9110 §8.8.3): that of this very file, whoever asks for it."""
    status = os.fstat(found.stream.fileno())
    return b'"%x-%x-%x-%x-%x"' % (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def send_file(request: IRequest, found: BootFile) -> int:
    """Send an open file with its length, at the pace of the requester, and close it.

    Nothing is sent to who has it already (If-None-Match).
    """
    known = request.setETag(tag(found)) is CACHED
    request.setHeader(b"content-type", b"application/octet-stream")
    if not known:
        request.setHeader(b"content-length", b"%d" % found.size)
    if known or request.method == b"HEAD" or found.size == 0:
        found.stream.close()
        request.finish()
        return NOT_DONE_YET
    sending = send(found, request)

    def sent(_: object) -> None:
        found.stream.close()
        request.finish()

    def cut(failure: Failure) -> None:
        found.stream.close()
        _log.debug("a requester left before the end of its boot file: {why}", why=failure.value)

    # A requester that leaves makes the request stop the sender, which fails then.
    sending.addCallbacks(sent, cut)
    return NOT_DONE_YET


class BootResource(Resource):
    """Serve the tftp directory of the requesting node.

    `files` provides IBootFiles. `?node_ip=` replaces the requester's address, for those who
    may read about people's work (`readers`): virtual nodes' files are fetched by the server
    itself. Others may state their own. `watch` gets the address of the node, the path that it asked
    for, and whether there is such a file. A file is sent when what `prepare` returns has fired:
    the node will then find the rest of what it boots.
    """

    isLeaf = True

    def __init__(
        self, files: IBootFiles, readers: Readers,
        watch: Watch = lambda node, path, found: None,
        prepare: Prepare = lambda node: None,
    ) -> None:
        super().__init__()
        self._prepare = prepare
        self._watch = watch
        self._files = files
        self._readers = readers

    def render_GET(self, request: IRequest) -> bytes | int:
        """Send the file, or the error in the preferred form."""
        given = request.args.get(b"node_ip", [])
        node = peer_address(request)
        if given:
            address = parse_address(given[-1].decode("ascii", "replace"))
            if address is None:
                return answer_error(request, 400, "node_ip is not an IPv4 address.")
            refusal = self._readers.refusal(request) if str(address) != node else None
            if refusal is not None:
                return answer_error(request, 403, refusal)
            node = str(address)
        raw = unquote_to_bytes(request.path.partition(b"/boot/")[2])
        return self.serve(request, node, raw.decode("utf-8", "surrogateescape"))

    def serve(
        self, request: IRequest, node: str, path: str, *, boots: bool = True
    ) -> bytes | int:
        """Send a boot file of the node of an address, or the error.

        Without `boots` somebody reads it, which tells nothing about the node.
        """
        try:
            found = self._files.open(node, path)
        except NotFound:
            if boots:
                self._watch(node, path, False)
            return answer_error(request, 404, "No such file.")
        if not boots:
            return send_file(request, found)
        self._watch(node, path, True)
        waiting = self._prepare(node)
        if waiting is None:
            return send_file(request, found)
        left: list[Failure] = []
        request.notifyFinish().addErrback(left.append)  # type: ignore[attr-defined]
        waiting.addCallback(lambda _: found.stream.close() if left else send_file(request, found))
        waiting.addErrback(lambda failure: _log.failure("sending a boot file", failure))
        return NOT_DONE_YET
