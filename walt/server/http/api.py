"""`/api/v1`: nodes, images and logs as JSON (spec user-surface §3.2)."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from operator import attrgetter
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from walt.common.errors import Busy, Invalid, LimitExceeded, Unavailable, WaltError
from walt.common.records import Block
from walt.rpc import openapi
from walt.rpc.base import abort
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry, by_name
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.logs.ere import Expression
from walt.server.domain.logs.lines import LogService
from walt.server.domain.logs.model import LogQuery
from walt.server.domain.nodes.views import NodeViews
from walt.server.http.answers import ErrorResource, answer_error
from walt.server.runtime.producing import Gate

_log = Logger()

EARLIEST = 1_340_000_000.0  # epoch seconds: nothing was logged before
READER_PATIENCE = 60.0  # seconds that a requester of logs may take nothing
FUTURE = 2.0  # seconds that a bound may lie ahead
INDEX = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>WalT web API</title></head><body>
<h1>WalT web API</h1><ul>
<li><a href="/api/v1/nodes">/api/v1/nodes</a>
 (filters: name model virtual image booted ip mac owner state)</li>
<li><a href="/api/v1/images">/api/v1/images</a> (filters: fullname user id in_use; refresh)</li>
<li>/api/v1/logs?from=SECONDS&amp;to=SECONDS (ts_unit=s|ms, issuer, stream)</li>
<li><a href="/api/v1/services">/api/v1/services</a></li>
<li><a href="/api/v1/openapi.json">/api/v1/openapi.json</a> (what these answer)</li>
</ul></body></html>
"""
Row = dict[str, Any]
Values = Mapping[str, str]
_T = TypeVar("_T")


def parameters(request: IRequest) -> dict[str, str]:
    """Return the values of the query, the last of each name, without empty ones.

    Raises Invalid for bytes that are no text.
    """
    found = {}
    try:
        for name, values in request.args.items():
            if values[-1]:
                found[name.decode()] = values[-1].decode()
    except UnicodeDecodeError:
        raise Invalid("The query is not valid UTF-8.") from None
    return found


def parsed(values: Values, fields: Mapping[str, type]) -> Row:
    """Return the values that fields shall have. Raises Invalid."""
    wanted: Row = {}
    for name, text in values.items():
        if name not in fields:
            raise Invalid(f"Unknown parameter {name[:80]!r}; there are: {', '.join(fields)}.")
        if fields[name] is bool:
            if text.lower() not in ("true", "false", "1", "0"):
                raise Invalid(f"{name} must be true or false.")
            wanted[name] = text.lower() in ("true", "1")
        else:
            wanted[name] = text
    return wanted


def filtered(rows: list[Row], values: Values, fields: Mapping[str, type]) -> list[Row]:
    """Return the rows whose fields equal the values. Raises Invalid."""
    wanted = parsed(values, fields)
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


class WebApi:
    """Answers of the entry points.

    `services` returns a row for each daemon; `clock` ends requesters that take nothing.
    """

    def __init__(
        self, registry: DeviceRegistry, views: NodeViews, images: ImageService,
        logs: LogService, services: Callable[[], list[Row]], clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._views = views
        self._images = images
        self._logs = logs
        self._services = services
        self._clock = clock

    async def nodes(self, values: Values, request: IRequest) -> bytes:
        """Nodes with their settings."""
        views = self._views
        told: dict[str, Callable[[Device], object]] = {
            "name": attrgetter("name"), "model": attrgetter("model"),
            "virtual": attrgetter("virtual"), "image": attrgetter("image"),
            "booted": views.is_booted, "ip": attrgetter("ip"), "mac": attrgetter("mac"),
            "owner": views.owner, "state": views.state,
        }
        wanted = parsed(values, {
            name: bool if name in ("virtual", "booted") else str for name in told
        })
        # Thousands are looked at: nothing is made of those that are not asked for.
        number, rows = await views.written(by_name(
            node for node in self._registry.nodes()
            if all(told[name](node) == value for name, value in wanted.items())
        ))
        return b"".join((b'{"num_nodes": %d, "nodes": [' % number, rows, b"]}\n"))

    async def images(self, values: Values, request: IRequest) -> Row:
        """Images of all users."""
        rest = dict(values)
        if rest.pop("refresh", "false").lower() in ("true", "1"):
            await self._images.refresh()
        used = self._registry.images()
        rows = [
            image.row(image.fullname in used)
            for image in sorted(self._images.all(), key=lambda image: image.fullname)
        ]
        found = filtered(rows, rest, {"fullname": str, "user": str, "id": str, "in_use": bool})
        return {"num_images": len(found), "images": found}

    async def services(self, values: Values, request: IRequest) -> Row:
        """The daemons of the server."""
        filtered([], values, {})
        return {"services": self._services()}

    async def openapi(self, values: Values, request: IRequest) -> str:
        """What there is, for programs (OpenAPI 3.1)."""
        filtered([], values, {})
        return openapi.written()

    async def logs(self, values: Values, request: IRequest) -> None:
        """Lines between two moments, sent as they are read: there may be millions."""
        rest = dict(values)
        query, scale = self._query(rest)
        peer: Any = request.getClientAddress()
        cursor, _ = await self._logs.open(query, str(getattr(peer, "host", "")), web=True)
        reader = _Reader(cast("Request", request), self._clock)
        count = 0
        try:
            request.setHeader(b"content-type", b"application/json")
            reader.write(b'{"logs": [')
            while block := await reader.unless_left(cursor.next_block()):
                pieces = list(_encoded(block, self._issuer, scale))
                reader.write((b", " if count else b"") + ", ".join(pieces).encode())
                count += len(block)
                await reader.ready()
            reader.write(b'], "num_logs": %d}\n' % count)
        finally:
            await cursor.close()
            reader.end()

    def _issuer(self, mac: str) -> str:
        device = self._registry.get(mac)
        return device.name if device is not None else mac

    def _query(self, values: dict[str, str]) -> tuple[LogQuery, float]:
        unit = values.pop("ts_unit", "s")
        if unit not in ("s", "ms"):
            raise Invalid("ts_unit must be s or ms.")
        scale = 1.0 if unit == "s" else 1000.0
        start, end = (self._bound(values, name, scale) for name in ("from", "to"))
        issuer, stream = values.pop("issuer", None), values.pop("stream", None)
        if values:
            raise Invalid(f"Unknown parameter {next(iter(values))[:80]!r}.")
        if stream is not None:
            Expression(stream)  # alone: "a)|(b" is none
        issuers = None
        if issuer is not None:
            device = self._registry.by_name(issuer)
            # And what was kept of forgotten devices of this name.
            issuers = frozenset({issuer, *([device.mac] if device is not None else [])})
        return LogQuery(
            issuers=issuers, streams=f"^({stream})$" if stream is not None else None,
            start=start, end=end,
        ), scale

    def _bound(self, values: dict[str, str], name: str, scale: float) -> float:
        try:
            moment = float(values.pop(name)) / scale
        except KeyError:
            raise Invalid(f"Parameter {name} is missing.") from None
        except ValueError:
            raise Invalid(f"Parameter {name} is not a number.") from None
        if not math.isfinite(moment) or not EARLIEST <= moment <= self._logs.now() + FUTURE:
            raise Invalid(
                f"Parameter {name} is before 2012 or in the future; is ts_unit what you meant?"
            )
        return moment


def _encoded(block: Block, name: Callable[[str], str], scale: float) -> Iterator[str]:
    for timestamp, mac, stream, line in block.records():
        yield json.dumps({
            "timestamp": timestamp * scale, "line": line, "issuer": name(mac),
            "stream": stream,
        })


class _Reader:
    """A requester, at its own pace; one that takes nothing for a minute is let go."""

    def __init__(self, request: Request, clock: IReactorTime) -> None:
        self._request = request
        self._clock = clock
        self._gone = False
        self._gate = Gate(stopped=lambda: self._left(None))
        self._waiting: Deferred[Any] | None = None
        request.notifyFinish().addBoth(self._left)
        self._request.registerProducer(self._gate, True)

    def write(self, data: bytes) -> None:
        if not self._gone:
            self._request.write(data)

    async def unless_left(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of some work, which ends when the requester leaves (Invalid)."""
        self._waiting = Deferred.fromCoroutine(work)
        if self._gone:
            self._waiting.cancel()
        try:
            result: _T = await self._waiting
        except CancelledError:
            raise Invalid("The requester left.") from None
        finally:
            self._waiting = None
        return result

    async def ready(self) -> None:
        """Wait until more can be written. Raises Invalid when the requester left."""
        if self._gate.closed:
            late = self._clock.callLater(READER_PATIENCE, abort, self._request.transport)
            try:
                await self._gate.opened()
            finally:
                if late.active():
                    late.cancel()
        if self._gone:
            raise Invalid("The requester left.")

    def end(self) -> None:
        if not self._gone:
            self._gone = True
            self._request.unregisterProducer()
            self._request.finish()

    def _left(self, _: object) -> None:
        self._gone = True
        self._gate.resumeProducing()
        if self._waiting is not None:
            self._waiting.cancel()


Work = Callable[[Values, IRequest], Awaitable["Row | str | bytes | None"]]


class _Entry(Resource):
    isLeaf = True

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def render_GET(self, request: IRequest) -> Any:
        work = Deferred.fromCoroutine(self._answer(request))
        work.addErrback(lambda failure: _log.failure("a page of the web API failed", failure))
        return NOT_DONE_YET

    async def _answer(self, request: Any) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        try:
            found = await self._work(parameters(request), request)
            if found is None:
                return  # it was sent piece by piece
            request.setHeader(b"content-type", b"application/json")
            if isinstance(found, bytes):  # of thousands of rows, and whole
                body = found
            else:
                text = found if isinstance(found, str) else json.dumps(found)
                body = text.encode() + b"\n"
        except WaltError as error:
            if request.startedWriting:
                return
            full = isinstance(error, (Busy, LimitExceeded, Unavailable))
            body = answer_error(request, 503 if full else 400, str(error))
        except Exception:
            _log.failure("a page of the web API failed")
            if request.startedWriting:
                return
            body = answer_error(request, 500, "Internal error; the server's log has the details.")
        if not gone:
            request.write(body)
            request.finish()


class _Index(Resource):
    isLeaf = True

    def render_GET(self, request: IRequest) -> bytes:
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return INDEX


class Api(Resource):
    """`/api/`."""

    def __init__(self, api: WebApi) -> None:
        super().__init__()
        self._entries: dict[bytes, Work] = {
            b"nodes": api.nodes, b"images": api.images, b"logs": api.logs,
            b"services": api.services, b"openapi.json": api.openapi,
        }

    def getChild(self, path: bytes, request: IRequest) -> Resource:
        """Return an entry point, or the list of them."""
        if path in (b"", b"index.html"):
            return _Index()
        rest = request.postpath
        if path == b"v1" and len(rest) == 1 and rest[0] in self._entries:
            request.prepath.append(rest.pop())
            return _Entry(self._entries[request.prepath[-1]])
        return ErrorResource(404, "No such page.")

    def render_GET(self, request: IRequest) -> bytes:
        """Answer `/api` as `/api/`."""
        return _Index().render_GET(request)
