"""`walt-server-setup --edit-conf`: networks, registries and VPN of server.conf, by questions.

Spec server §8.2. What the server would refuse is told at once, and cannot be saved; comments and
what is not asked about stay. Everything is asked on the terminal, a line for each answer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from walt.common.errors import ConfigurationError
from walt.server.config import edit
from walt.server.config.load import parse
from walt.server.config.model import WALT_NET
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.vpn_editor import (
    Trials,
    VpnEditor,
    enabled,
    real_trials,
    section,
)

NETWORKS = (WALT_NET, "walt-adm")  # others are edited in the file
NOTHING = "-"  # the answer that removes a value
HUB = {"label": "hub", "api": "docker-hub", "description": "Docker hub"}
# What is asked of a registry, with what an empty answer means.
FIELDS = (
    ("label", ""), ("description", ""), ("api", "docker-registry-v2"), ("host", ""),
    ("port", "443"), ("protocol", "https"), ("auth", "basic"),
)
JFROG = "jfrog-artifactory"
LONGEST_DESCRIPTION = 35  # characters, as wide as tables show it
HELP = """\
A network has an interface of this machine that leads to its devices and is not the one of the
default gateway, or none; a VLAN on it, or none; an address with its prefix, as in
192.168.183.1/24, or `dhcp` (not walt-net). walt-net without an interface has virtual nodes only.
An empty answer keeps a value, `-` removes it. Nothing is written before `s`."""


def interfaces(machine: Machine) -> list[str]:
    """Return the wired interfaces of a machine that do not lead to its default gateway."""
    place, gateways = machine.at("/sys/class/net"), _gateways(machine)
    return sorted(
        path.name for path in (place.iterdir() if place.is_dir() else ())
        if (path / "device").exists() and not (path / "wireless").exists()
        and path.name not in gateways
    )


def gateway_vlans(machine: Machine) -> frozenset[tuple[str, int]]:
    """Return the VLANs that lead to the default gateway, each with the interface below it.

    /proc/net/vlan/config has a line `NAME | VLAN | INTERFACE` for each (kernel, 8021q/vlanproc.c).
    """
    lines = (machine.read("/proc/net/vlan/config") or "").splitlines()
    fields = [[word.strip() for word in line.split("|")] for line in lines]
    gateways = _gateways(machine)
    return frozenset(
        (words[2], int(words[1])) for words in fields
        if len(words) == 3 and words[1].isdecimal() and words[0] in gateways
    )


def _gateways(machine: Machine) -> set[str]:
    """Return the interfaces of default routes."""
    lines = (machine.read("/proc/net/route") or "").splitlines()
    return {
        words[0] for words in map(str.split, lines) if len(words) > 1 and words[1] == "00000000"
    }


def resolves(host: str) -> bool:
    """Tell whether a name has an address here."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return True


class Editor:
    """Edit a text of server.conf.

    `ask` returns the answer to a question, `tell` shows a line; `known` are interfaces that can be
    chosen, `reachable` tells whether a host has an address; `taken` are VLANs of the default
    gateway, each with its interface; `trials` try entry points of the VPN.
    """

    def __init__(
        self, text: str, known: Sequence[str], ask: Callable[[str], str],
        tell: Callable[[str], object], reachable: Callable[[str], bool] = resolves,
        taken: Collection[tuple[str, int]] = (),
        trials: Trials | None = None,
    ) -> None:
        self.text = text
        self._known = known
        self._trials = trials or real_trials(text)
        self._ask, self._tell, self._reachable = ask, tell, reachable
        self._taken = taken

    def run(self) -> str | None:
        """Ask until somebody saves; return the new text, None when it is discarded."""
        while True:
            self._show()
            answer = self._ask(
                "1, 2: edit a network; a: add a registry; e LABEL: edit one; r LABEL: remove one;"
                " v: edit the VPN;"
                " ?: help; s: save; d: discard > "
            ).strip()
            if answer == "d":
                return None
            if answer == "s":
                if not self._errors():
                    return self.text
                self._tell("This cannot be saved: mend what is wrong, or discard it.")
            elif answer in ("1", "2"):
                self._network(NETWORKS[int(answer) - 1])
            elif answer == "a":
                self._add()
            elif answer == "v":
                self.text = VpnEditor(
                    self.text, self._ask, self._tell, self._reachable, self._trials
                ).run()
            elif answer.startswith("e "):
                self._edit(answer[2:].strip())
            elif answer.startswith("r "):
                self._remove(answer[2:].strip())
            elif answer:
                self._tell(HELP)

    # -- what there is ---------------------------------------------------------

    def _data(self) -> Mapping[str, Any]:
        return edit.values(self.text)

    def _of(self, name: str) -> Mapping[str, Any]:
        networks = self._data().get("network")
        found = networks.get(name) if isinstance(networks, dict) else None
        return found if isinstance(found, dict) else {}

    def _registries(self) -> list[dict[str, Any]]:
        found = self._data().get("registries", [HUB])
        return [
            registry for registry in found if isinstance(registry, dict)
        ] if isinstance(found, list) else []

    def _errors(self) -> list[str]:
        """Return what the server would refuse, and what an editor knows better."""
        found = []
        try:
            parse(self.text)
        except ConfigurationError as error:
            found = str(error).splitlines()
        if not self._registries():
            found.append("registries: at least one is needed")
        # Repositories of JFrog's are registries of their own.
        places = [
            (registry["host"], registry.get("port", 443), registry.get("repository"))
            for registry in self._registries() if registry.get("host")
        ]
        if any(places.count(place) > 1 for place in places):
            found.append("registries: two registries are at the same host and port")
        for name in NETWORKS:
            values = self._of(name)
            if (values.get("raw-device"), values.get("vlan")) in self._taken:
                found.append(
                    f"network.{name}.vlan: VLAN {values['vlan']} of {values['raw-device']}"
                    " leads to the default gateway"
                )
        return found

    def _show(self) -> None:
        self._tell("")
        for number, name in enumerate(NETWORKS, 1):
            values = self._of(name)
            words = [
                f"{key} {values[key]}" for key in ("raw-device", "vlan", "ip") if key in values
            ]
            self._tell(f"  {number}  {name}: {', '.join(words) or 'none'}")
        for registry in self._registries():
            where = registry.get("host") or registry.get("api")
            self._tell(f"     registry {registry.get('label')}: {where}")
        if enabled(self.text):
            self._tell(f"     VPN: {section(self.text)['ssh-entrypoint']}")
        errors = self._errors()
        self._tell("\n".join(f"  WRONG: {line}" for line in errors) if errors else "  OK")

    # -- what changes ----------------------------------------------------------

    def _change(self, *changes: tuple[Sequence[str], Any]) -> None:
        self.text = edit.changed(self.text, changes)

    def _network(self, name: str) -> None:
        values = self._of(name)
        self._tell(f"interfaces: {', '.join(self._known) or 'none that is free'}")
        for key in ("raw-device", "vlan", "ip"):
            answer = self._ask(f"{name} {key} [{values.get(key, 'none')}]: ").strip()
            if answer == NOTHING:
                self._change((("network", name, key), None))
            elif key == "raw-device" and answer and answer not in self._known:
                self._tell(f"{answer} is none of these interfaces; it stays as it was")
            elif answer:
                whole = int(answer) if key == "vlan" and answer.isdecimal() else answer
                self._change((("network", name, key), whole))
        if name != WALT_NET and not self._of(name):
            self._change((("network", name), None))

    def _add(self) -> None:
        others = self._registries()
        found = self._asked({}, others)
        if found is not None and found == HUB:
            self._change((("registries",), [found, *others]))
        elif found is not None:
            self._change((("registries",), [*others, found]))

    def _edit(self, label: str) -> None:
        registries = self._registries()
        labels = [registry.get("label") for registry in registries]
        if label not in labels or label == HUB["label"]:
            self._tell(
                "the hub has nothing to be edited" if label == HUB["label"]
                else f"there is no registry {label}"
            )
            return
        place = labels.index(label)
        others = [*registries[:place], *registries[place + 1:]]
        found = self._asked(registries[place], others)
        if found is not None:
            registries[place] = found
            self._change((("registries",), registries))

    def _asked(
        self, before: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any] | None:
        """Ask for what a registry is, beside others; return None for what makes no sense."""
        found: dict[str, Any] = {}
        for key, default in FIELDS:
            default = str(before.get(key, default))
            answer = self._ask(f"{key} [{default}]: ").strip() or default
            if key == "label" and (
                not answer or any(registry.get("label") == answer for registry in others)
            ):
                self._tell("a label of its own is needed")
                return None
            if key == "label" and answer == HUB["label"] and not before:
                return dict(HUB)
            if key == "description" and not 1 <= len(answer) <= LONGEST_DESCRIPTION:
                self._tell(f"a description of 1 to {LONGEST_DESCRIPTION} characters is needed")
                return None
            if key == "host" and not self._reachable(answer):
                self._tell(f"{answer or 'an empty name'} has no address here")
                return None
            found[key] = int(answer) if key == "port" and answer.isdecimal() else answer
        if found["api"] == JFROG:
            default = str(before.get("repository", ""))
            found["repository"] = self._ask(f"repository [{default}]: ").strip() or default
        return found

    def _remove(self, label: str) -> None:
        left = [registry for registry in self._registries() if registry.get("label") != label]
        if len(left) == len(self._registries()):
            self._tell(f"there is no registry {label}")
        self._change((("registries",), left))
