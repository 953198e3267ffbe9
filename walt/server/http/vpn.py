"""`/walt-vpn`: how boards enrol in the VPN, and boot from outside (spec node-protocols §9.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from walt.common.errors import Busy, CommandFailed, Denied, NotFound, Unavailable, WaltError
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.network_services.interfaces import IBootFiles
from walt.server.domain.vpn.enrolment import VpnNodes
from walt.server.domain.vpn.interfaces import IBootSignatures
from walt.server.http.answers import ErrorResource, answer_error
from walt.server.http.boot import BootResource
from walt.server.http.vpn_requesters import Requesters

_log = Logger()

IMAGE, SIGNATURE = "boot.img", "boot.sig"
BOOT_EVERY = 10.0  # seconds; anybody can ask in the name of a board


def later(request: Any, work: Coroutine[Any, Any, str]) -> int:
    """Answer with the text that `work` returns, or with its error.

    Who leaves is not answered; what was begun goes on.
    """
    left: list[Failure] = []
    request.notifyFinish().addErrback(left.append)

    def answer(body: bytes) -> None:
        if not left:
            request.setHeader(b"content-length", b"%d" % len(body))
            if request.method != b"HEAD":
                request.write(body)
            request.finish()

    def done(text: str) -> None:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        answer(text.encode())

    def failed(failure: Failure) -> None:
        if failure.check(Busy, Unavailable, CommandFailed):
            status, text = 503, str(failure.value)
        elif failure.check(WaltError):
            status, text = 400, str(failure.value)
        else:
            _log.failure("answering a board of the VPN", failure)
            status, text = 500, "internal error; see the log of the server"
        if not left:
            answer(answer_error(request, status, text))

    Deferred.fromCoroutine(work).addCallbacks(done, failed)
    return NOT_DONE_YET


class _Text(Resource):
    """A text that has to be found out; `find` gets who asks."""

    isLeaf = True

    def __init__(self, find: Callable[[str], Awaitable[str]], requesters: Requesters) -> None:
        super().__init__()
        self._find, self._requesters = find, requesters

    def render_GET(self, request: IRequest) -> int:
        ip, _ = self._requesters.of(request)

        async def work() -> str:
            return await self._find(ip)

        return later(request, work())


class _Enrolment(Resource):
    isLeaf = True

    def __init__(self, vpn: VpnNodes, requesters: Requesters) -> None:
        super().__init__()
        self._vpn, self._requesters = vpn, requesters

    def render_POST(self, request: IRequest) -> bytes | int:
        """Sign the key in the field `ssh-pubkey`."""
        refusal = self._requesters.refusal(request)
        if refusal is not None:
            return answer_error(request, 403, refusal)
        given = request.args.get(b"ssh-pubkey", [])
        if not given or not given[-1].strip():
            return answer_error(request, 400, "Public key not provided.")
        ip, on_behalf = self._requesters.of(request)

        async def work() -> str:
            await self._vpn.enrol(ip, given[-1].decode("utf-8", "replace"), on_behalf=on_behalf)
            return "OK\n"

        return later(request, work())


class _PerIp(Resource):
    """The boot files of one board for whoever asks: they hold no secret, and are signed."""

    isLeaf = True

    def __init__(
        self, vpn: VpnNodes, files: IBootFiles, boot: BootResource, signatures: IBootSignatures,
        seconds: Callable[[], float],
    ) -> None:
        super().__init__()
        self._vpn, self._files, self._boot = vpn, files, boot
        self._signatures, self._seconds = signatures, seconds
        self._booted: dict[str, float] = {}  # by MAC of the VPN

    def render_GET(self, request: IRequest) -> bytes | int:
        """Send the file, or the signature of the boot image."""
        raw = unquote_to_bytes(request.path.partition(b"/per-ip/")[2])
        dashed, _, path = raw.decode("utf-8", "surrogateescape").partition("/")
        address = parse_address(dashed.replace("-", ".")) if "." not in dashed else None
        try:
            if address is None:
                raise NotFound("no such board")
            vpn_mac = self._vpn.vpn_mac(str(address))
            if path != SIGNATURE:
                boots = path == IMAGE and self._boots(vpn_mac)
                return self._boot.serve(request, str(address), path, boots=boots)
            found = self._files.open(str(address), IMAGE)
        except (NotFound, Denied):
            return answer_error(request, 404, "No such file.")

        async def work() -> str:
            with found.stream as stream:
                return await self._signatures.sign(stream)

        return later(request, work())

    def _boots(self, vpn_mac: str) -> bool:
        """Tell whether a request counts as a boot: of boards that are enrolled, now and then."""
        now = self._seconds()
        self._booted = {
            mac: since for mac, since in self._booted.items() if now - since < BOOT_EVERY
        }
        if not vpn_mac or vpn_mac in self._booted:
            return False
        self._booted[vpn_mac] = now
        return True


def vpn_pages(
    vpn: VpnNodes, files: IBootFiles, boot: BootResource, signatures: IBootSignatures, *,
    requesters: Requesters, name: str, seconds: Callable[[], float],
) -> Resource:
    """Return the pages; `boot` sends boot files, `name` is the server's full name, `seconds`
    the clock."""

    def said(text: Callable[[str], str]) -> Callable[[str], Awaitable[str]]:
        async def find(ip: str) -> str:
            return text(ip)

        return find

    entry_points = vpn.entry_points

    async def host_keys(_: str) -> str:
        return await vpn.host_keys()

    async def public_key(_: str) -> str:
        return await signatures.public_key()

    items = {
        "ssh-pubkey-cert": vpn.certificate,
        "ssh-entrypoint-host-keys": host_keys,
        "public.pem": public_key,
        "vpn-mac": said(vpn.vpn_mac),
        "http-path": said(lambda ip: f"walt-vpn/per-ip/{ip.replace('.', '-')}"),
        "ssh-entrypoint": said(lambda _: entry_points.ssh if entry_points else ""),
        "http-entrypoint": said(lambda _: entry_points.http if entry_points else ""),
        "boot-mode": said(lambda _: entry_points.boot_mode if entry_points else ""),
    }
    pages, conf = _Pages(), _ForBoards(requesters)
    for item, find in items.items():
        conf.putChild(item.encode(), _Text(find, requesters))
    pages.putChild(b"node-conf", conf)
    pages.putChild(b"enroll", _Enrolment(vpn, requesters))
    pages.putChild(b"per-ip", _PerIp(vpn, files, boot, signatures, seconds))
    pages.putChild(b"server", _Text(said(lambda _: f"{name}\n"), requesters))
    return pages


class _Pages(Resource):
    def getChild(self, path: bytes, request: IRequest) -> Resource:
        return ErrorResource(404, "No such page.")

    def render_GET(self, request: IRequest) -> bytes:
        return answer_error(request, 404, "No such page.")


class _ForBoards(_Pages):
    """Pages about the board that asks."""

    def __init__(self, requesters: Requesters) -> None:
        super().__init__()
        self._requesters = requesters

    def getChildWithDefault(self, path: bytes, request: IRequest) -> Any:
        refusal = self._requesters.refusal(request)
        if refusal is not None:
            return ErrorResource(403, refusal)
        return super().getChildWithDefault(path, request)
