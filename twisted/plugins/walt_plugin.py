"""Makes `twistd walt-server` known; the heavy modules load when it is used."""

from twisted.application.service import ServiceMaker

walt_server = ServiceMaker(
    "WalT server", "walt.server.tap", "The server of a WalT network testbed.", "walt-server"
)
