"""Commands about the server itself."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from walt.rpc.commands import session as commands
from walt.server.api.context import Context


class ServerApi(amp.CommandLocator):
    """Time, daemons and workflows."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @commands.GetTime.responder
    def time(self) -> dict[str, Any]:
        """Epoch seconds."""
        return {"time": self._context.now()}

    @commands.ShowWorkflows.responder
    def workflows(self) -> dict[str, Any]:
        """What is going on."""
        return {"rows": self._context.operations.workflows()}

    @commands.ShowServices.responder
    def services(self) -> dict[str, Any]:
        """How the daemons are."""
        return {"rows": self._context.operations.services()}
