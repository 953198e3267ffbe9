"""The way in of boards of the VPN: the sshd of the platform, and the entry points."""

from __future__ import annotations

import socket
from functools import partial

from walt.server.adapters.vpn.authority import CA_KEY
from walt.server.assembly.vpn import full_name
from walt.server.config.model import ServerConfig
from walt.server.domain.vpn.model import EntryPoints
from walt.server.tools.doctor.findings import Doubtful, Skipped, Step, Wrong
from walt.server.tools.doctor.outside import Site
from walt.server.tools.vpn.entry_point import try_ssh
from walt.server.tools.vpn.http_trial import ask_http

PATIENCE = 5.0  # seconds
HELLO = b"SSH-2.0-"  # RFC 4253 §4.2


class VpnSteps:
    """The steps, none for a platform without VPN; `site` is where the server is found."""

    def __init__(self, config: ServerConfig, site: Site) -> None:
        self._config, self._site = config, site
        vpn = config.vpn
        self._entries = EntryPoints(
            vpn.ssh_entrypoint or "", vpn.http_entrypoint or "", vpn.boot_mode or "permissive"
        )

    def steps(self) -> list[Step]:
        """Return them: what is near first."""
        if not self._config.vpn.enabled:
            return []
        return [
            Step("VPN sshd", self.sshd),
            Step("VPN ssh entry point", self.ssh_entry_point),
            Step("VPN HTTP entry point", self.http_entry_point),
        ]

    def sshd(self) -> str:
        """Our own sshd answers."""
        port = self._config.vpn.ssh_port
        try:
            hello = self._site.from_server(partial(_hello, port))
        except OSError as error:
            raise Wrong(
                f"nothing answers at port {port}: {error.strerror or error}",
                "see `sshd` in walt advanced services, and its lines in the log of the server",
            ) from None
        if not hello.startswith(HELLO):
            raise Wrong(
                f"what answers at port {port} is no ssh server",
                f"see who has it (ss -lntp sport = :{port}), or choose another vpn.ssh-port",
            )
        return f"it answers at port {port}"

    def ssh_entry_point(self) -> str:
        """A board could come in by it."""
        host, port = self._entries.ssh_address
        key = self._config.paths.state / "vpn-server" / CA_KEY
        if not key.exists():
            raise Skipped("the server makes its keys when it starts with a VPN")
        wrong = try_ssh(host, port, full_name(self._config), key)
        if wrong is not None:
            raise Wrong(
                f"boards cannot come in by {host}, port {port}: {wrong}",
                "walt help show vpn-ssh-entrypoint",
            )
        return f"boards can come in by {host}, port {port}"

    def http_entry_point(self) -> str:
        """What boards fetch first comes from this server."""
        host = self._entries.http
        wrong = ask_http(host, full_name(self._config))
        if wrong is not None:
            # A board that is at home boots without it; those elsewhere do not.
            raise Doubtful(
                f"boards elsewhere do not find this server by {host}: {wrong}",
                "walt help show vpn-http-entrypoint",
            )
        return f"boards find this server by {host}"


def _hello(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.settimeout(PATIENCE)
        return connection.recv(len(HELLO))
