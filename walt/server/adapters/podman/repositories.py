"""Git, towards addresses that were checked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from walt.common.errors import CommandFailed, Unavailable
from walt.common.files import write_atomic
from walt.server.domain.images.repositories import (
    NOT_FETCHED,
    PORTS,
    Address,
    Network,
    may_be_read,
    parse_addresses,
    parse_repository,
)
from walt.server.runtime.process import ProcessRunner

QUICK = 30.0  # seconds
NONE = "x-none"  # in place of a password: a word must be there
# `ext::` would be any command, `file::` any repository of the server's disk.
PROTOCOLS = "git:http:https:ssh"


class Repositories:
    """Makes the commands that fetch; names are resolved once, and git gets what was checked.

    `ssh` returns the ssh command with more options; `closed` networks are not read from,
    `allowed` ones are, whatever else forbids it.
    """

    def __init__(
        self, runner: ProcessRunner, ssh: Callable[[Sequence[str]], list[str]],
        closed: Sequence[Network] = (), allowed: Sequence[Network] = (),
    ) -> None:
        self._runner = runner
        self._closed = closed
        self._allowed = allowed
        self._ssh = ssh

    async def command(self, url: str, directory: Path, home: Path, *, progress: bool) -> list[str]:
        """Return the git command (on the host's network). Raises Invalid, CommandFailed.

        `home` has no settings, cookies nor passwords: nothing of root is shown to anybody. The
        password of an address goes there (netrc(5)): command lines can be read by everybody.
        """
        repository = parse_repository(url)
        url = repository.url
        if repository.login:
            write_atomic(
                home / ".netrc",
                f"machine {repository.host} login {repository.login}"
                f" password {repository.password or NONE}\n", 0o600,
            )
        addresses = await self._addresses(repository.host)
        options: list[str] = []
        ssh: Sequence[str] = ()
        if repository.scheme in ("http", "https"):
            port = repository.port or PORTS[repository.scheme]
            where = ",".join(
                f"[{address}]" if address.version == 6 else str(address) for address in addresses
            )
            options = ["-c", f"http.curloptResolve={repository.host}:{port}:{where}"]
        elif repository.scheme == "git":
            url = repository.at(addresses[0])
        else:
            ssh = ("-o", f"HostName={addresses[0]}", "-o", f"HostKeyAlias={repository.where}")
        return [
            "env", f"HOME={home}", "GIT_TERMINAL_PROMPT=0", f"GIT_ALLOW_PROTOCOL={PROTOCOLS}",
            f"GIT_SSH_COMMAND={shlex.join(self._ssh(ssh))}", "GIT_SSH_VARIANT=ssh",
            "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
            "git", "-c", "http.followRedirects=false", *options,
            "clone", "--progress" if progress else "--quiet", "--depth", "1",
            "--single-branch", "--no-tags", "--", url, str(directory),
        ]

    async def _addresses(self, host: str) -> list[Address]:
        """Resolve a name on the host's network; all of its addresses may be read from."""
        try:
            answer = await self._runner.run(
                ["getent", "ahosts", host], timeout=QUICK, check=False, network="host"
            )
        except Unavailable:
            raise CommandFailed(NOT_FETCHED) from None  # it took too long
        found = parse_addresses(answer.stdout.decode(errors="replace"))
        own = await self._own_addresses()
        if not found or not all(
            may_be_read(address, self._closed, own, self._allowed) for address in found
        ):
            raise CommandFailed(NOT_FETCHED)
        return found

    async def _own_addresses(self) -> list[Address]:
        answer = await self._runner.run(
            ["ip", "-json", "address"], timeout=QUICK, network="host"
        )
        return [
            ip_address(address["local"])
            for link in json.loads(answer.stdout or b"[]") for address in link.get("addr_info", ())
            if "local" in address
        ]
