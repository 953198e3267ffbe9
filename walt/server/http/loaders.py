"""`/pxe/<file>`: the boot loaders that TFTP serves, for firmware that fetches them by HTTP."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from walt.common.errors import NotFound
from walt.server.domain.network_services.interfaces import BootFile
from walt.server.http.answers import answer_error
from walt.server.http.boot import send_file


class Loaders(Resource):
    """Send loaders to whoever asks; `find` opens one by its name, or raises NotFound."""

    isLeaf = True

    def __init__(self, find: Callable[[str], BootFile]) -> None:
        super().__init__()
        self._find = find

    def render_GET(self, request: IRequest) -> bytes | int:
        """Send the file, or the error in the preferred form."""
        try:
            found = self._find(b"/".join(request.postpath).decode("ascii", "replace"))
        except NotFound:
            return answer_error(request, 404, "No such file.")
        return send_file(request, found)
