"""The VPN in `walt-server-setup --edit-conf`: entry points are tried as they are given."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walt.server.adapters.vpn.authority import CA_KEY
from walt.server.config import edit
from walt.server.config.model import Paths, Vpn
from walt.server.domain.vpn.model import EntryPoints
from walt.server.tools.vpn.entry_point import try_ssh
from walt.server.tools.vpn.http_trial import try_http

MODES = ("permissive", "enforced")
YES = "yes"
HELP = """\
s: the ssh entry point (HOST or HOST:PORT), h: the HTTP entry point (HOST), m: the boot mode,
x: no VPN, an empty answer: back. Boards learn entry points when they boot in walt-net."""


@dataclass(frozen=True)
class Trials:
    """What is asked of the world: each returns what is wrong, None if nothing is."""

    full_name: Callable[[], str]
    http: Callable[[str, str], str | None]
    ssh: Callable[[str, str], str | None]


def real_trials(text: str) -> Trials:
    """Return those of a machine with this server.conf."""
    state = Path(str(edit.values(text).get("state-dir") or Paths().state))
    key = state / "vpn-server" / CA_KEY

    def ssh(entry_point: str, name: str) -> str | None:
        if not key.exists():
            return "it can be tried when the server has run with a VPN: it makes the keys"
        try:
            host, port = EntryPoints(entry_point, "", "permissive").ssh_address
        except ValueError:
            return "expected HOST or HOST:PORT"
        return try_ssh(host, port, name, key)

    return Trials(socket.getfqdn, try_http, ssh)


class VpnEditor:
    """Edits section `vpn` of a text; `ask`, `tell` and `reachable` as in `Editor`."""

    def __init__(
        self, text: str, ask: Callable[[str], str], tell: Callable[[str], object],
        reachable: Callable[[str], bool], trials: Trials,
    ) -> None:
        self.text = text
        self._ask, self._tell, self._reachable = ask, tell, reachable
        self._trials = trials

    def run(self) -> str:
        """Ask until there is an empty answer; return the text."""
        if not enabled(self.text) and not self._enable():
            return self.text
        while True:
            values = section(self.text)
            self._tell(
                f"VPN: ssh {values['ssh-entrypoint']}, http {values['http-entrypoint']},"
                f" {values['boot-mode']}"
            )
            answer = self._ask("s, h, m, x, ?: help > ").strip()
            if not answer:
                return self.text
            if answer == "x":
                self._change(("enabled", False))
                return self.text
            if answer == "m":
                self._change(("boot-mode", MODES[values["boot-mode"] == MODES[0]]))
            elif answer in ("s", "h"):
                self._entry_point(answer == "s")
            else:
                self._tell(HELP)

    def _change(self, *changes: tuple[str, Any]) -> None:
        self.text = edit.changed(self.text, [(("vpn", key), value) for key, value in changes])

    def _name(self) -> str:
        names = edit.values(self.text).get("security")
        known = names.get("names") if isinstance(names, dict) else None
        given = [name for name in known if isinstance(name, str)] if isinstance(known, list) else []
        return next((name for name in given if "." in name), "") or self._trials.full_name()

    def _enable(self) -> bool:
        name = self._name()
        if "." not in name or not self._reachable(name):
            self._tell(
                f"{name or 'this machine'} is no full name with an address: other networks could"
                " not find the server; see security.names in server.conf"
            )
            return False
        self._tell(
            f"Boards keep {name} in their EEPROM: the name, and its address, should stay for long."
        )
        if self._ask(f"enable the VPN of {name} ({YES}: do it) > ").strip() != YES:
            return False
        self._change(
            ("enabled", True), ("ssh-entrypoint", f"{name}:{Vpn().ssh_port}"),
            ("http-entrypoint", name), ("boot-mode", MODES[0]),
        )
        security = edit.values(self.text).get("security")
        known = security.get("names") if isinstance(security, dict) else None
        names = known if isinstance(known, list) else []
        if name not in names:
            self.text = edit.changed(self.text, [(("security", "names"), [name, *names])])
        return True

    def _entry_point(self, ssh: bool) -> None:
        key = "ssh-entrypoint" if ssh else "http-entrypoint"
        answer = self._ask(f"{key} [{section(self.text)[key]}]: ").strip()
        if not answer:
            return
        self._tell(f"trying {answer}...")
        wrong = (self._trials.ssh if ssh else self._trials.http)(answer, self._name())
        if wrong is not None:
            self._tell(wrong)
            if self._ask(f"take {answer} all the same ({YES}: do it) > ").strip() != YES:
                return
        self._change((key, answer))


def section(text: str) -> Mapping[str, Any]:
    """Return section `vpn` of a server.conf."""
    found = edit.values(text).get("vpn")
    return found if isinstance(found, dict) else {}


def enabled(text: str) -> bool:
    """Tell whether a server.conf has a VPN: half a section is none (spec server §8.3)."""
    values = section(text)
    whole = all(values.get(key) for key in ("ssh-entrypoint", "http-entrypoint", "boot-mode"))
    return whole and values.get("enabled") is not False
