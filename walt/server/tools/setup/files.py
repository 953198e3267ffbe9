"""The texts of the files that set-up writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from walt.client.completion.script import dump
from walt.common.errors import Unavailable
from walt.server.config.load import DEFAULT_FILE
from walt.server.config.model import Registry
from walt.server.tools.setup.steps import FirstFile, OwnFile

ENVIRONMENT = "/etc/walt/server.env"
_ENVIRONMENT = """\
# Environment of the WalT server (systemd.exec(5), EnvironmentFile): NAME=value, one a line.
# A proxy for images and registries:
#http_proxy=http://proxy.example:3128
#https_proxy=http://proxy.example:3128
#no_proxy=localhost,127.0.0.1
# More options of walt-server-daemon:
#DAEMON_ARGS=
"""
_SPEC = """\
# What this server offers to images that ask for it in their /etc/walt/image.spec.
features: [ptp]
"""
_CLIENT = """\
# Configuration of the walt command.
# Remove a line to be asked for its value again.
walt:
  # IP address or host name of the server
  server: localhost
"""
REGISTRIES = "/etc/containers/registries.conf.d/walt.conf"
_HEAD = "# Written by walt-server-setup from `registries` of server.conf; changes are lost.\n"
UNIT_PROGRAMS = "/opt/walt/bin"  # as units are shipped
_PLAIN = re.compile(r"[\w/.+:@,=-]+", re.ASCII)


def unit(name: str, programs: Path, config: Path) -> str:
    """Return a unit that is shipped, with the place of the programs and of server.conf.

    Raises Unavailable for a place that means something else in a unit (systemd.syntax(7)).
    """
    for path in (programs, config):
        if _PLAIN.fullmatch(str(path)) is None:
            raise Unavailable(
                f"{path} cannot stand in a unit of systemd; use a directory whose path has letters,"
                " digits and / . _ - + : @ , = alone"
            )
    text = files("walt.server.units").joinpath(name).read_text()
    return text.replace(UNIT_PROGRAMS, str(programs)).replace(str(DEFAULT_FILE), str(config))


def registries(entries: Sequence[Registry]) -> str:
    """Return what podman and skopeo are told of registries (containers-registries.conf(5))."""
    tables, prefixes = "", []
    for entry in entries:
        if entry.api == "docker-hub":
            prefix, place = "docker.io", entry.host or "registry-1.docker.io"
        else:
            prefix = place = f"{entry.host}:{entry.port}"
            if entry.repository is not None:
                prefix = place = f"{place}/{entry.repository}"
        prefixes.append(prefix)
        tables += (
            f"\n[[registry]]\nprefix = {json.dumps(prefix)}\nlocation = {json.dumps(place)}\n"
            f"insecure = {json.dumps(entry.protocol != 'https')}\n"
        )
    return f"{_HEAD}unqualified-search-registries = {json.dumps(prefixes)}\n{tables}"


def first_files(spec: Path) -> list[OwnFile | FirstFile]:
    """Return the files that administrators own from then on."""
    return [
        FirstFile(ENVIRONMENT, _ENVIRONMENT), FirstFile(str(spec), _SPEC),
        FirstFile("/root/.walt/config", _CLIENT, 0o600),
        FirstFile("/etc/skel/.walt/config", _CLIENT, 0o600),
    ]


def completion(prefix: str) -> list[OwnFile | FirstFile]:
    """Return the files by which shells complete words of walt."""
    return [
        OwnFile("/etc/bash_completion.d/walt", dump("bash")),
        OwnFile(f"{prefix}/share/zsh/site-functions/_walt", dump("zsh")),
    ]


def programs() -> list[str]:
    """Return the names of the executables of this distribution."""
    entries = metadata.distribution("walt").entry_points
    return sorted(entry.name for entry in entries if entry.group == "console_scripts")
