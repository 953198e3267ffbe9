"""`walt device rescan`, `tree` and `port-config` (spec user-surface §1.11)."""

from __future__ import annotations

import sys

from walt.client.errors import WRONG_WORDS, Failure
from walt.client.operations import switches
from walt.client.session import Session
from walt.client.terminal import Terminal

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

EVIDENCE = {
    "lldp-both": "LLDP at both ends", "lldp": "LLDP at one end", "bridge": "bridge table",
    "report": "the node says so",
}


def rescan(device_set: str, json: bool) -> int:
    """Ask switches what they see; return the exit status."""
    results = switches.rescan(Session(Terminal("Querying switches")), device_set, quiet=json)
    if json:
        _print_json(results)
    return 0 if all(result["result"] == "OK" for result in results) else 1


def _print_json(value: object) -> None:
    from walt.client.output import print_json

    print_json(value)


# -- tree ------------------------------------------------------------------


class Strokes:
    """What the tree is drawn with: boxes where the output can have them."""

    def __init__(self, encoding: str | None) -> None:
        self.branch, self.last, self.down = "├─", "└─", "│"
        try:
            (self.branch + self.last + self.down).encode(encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            self.branch, self.last, self.down = "|-", "`-", "|"


def tree(show_all: bool, json: bool) -> None:
    """Print the network as a tree."""
    root, age, branches = switches.tree(Session(Terminal()), show_all)
    if json:
        _print_json({"root": root, "age": age, "branches": branches})
        return
    print("\n".join(drawn(root, branches, Strokes(sys.stdout.encoding))))
    print()
    for line in notes(branches, age, show_all):
        print(line)


def drawn(root: str, branches: list[dict[str, Any]], strokes: Strokes) -> list[str]:
    """Return the lines of the tree."""
    lines = [f"-- {root} --"]
    after = _followed(branches)
    for number, branch in enumerate(branches):
        depth = branch["depth"]
        margin = "".join(
            f"{strokes.down if more else ' '}    " for more in after[number][:depth]
        )
        stroke = strokes.branch if after[number][depth] else strokes.last
        port = "" if branch["kind"] == "hidden" else f"{branch['port'] or '?'}: "
        lines.append(f"{margin}{stroke}{port}{label(branch)}{remarks(branch)}")
    return lines


def _followed(branches: list[dict[str, Any]]) -> list[list[bool]]:
    """Return, for each branch and each depth up to its own, whether more follows there."""
    found: list[list[bool]] = []
    more: list[bool] = []
    for branch in reversed(branches):
        depth = branch["depth"]
        more = [*more[:depth + 1], *[False] * (depth + 1 - len(more))]
        found.append(list(more))
        more[depth] = True
    return found[::-1]


def label(branch: dict[str, Any]) -> str:
    """Return a device as the tree shows it."""
    name = branch["name"]
    if branch["kind"] == "hidden":
        if not branch["explorable"]:
            return "[...] ~> exploring this switch is forbidden by its configuration"
        return "[...] ~> no node here"
    if branch["kind"] == "back":
        return f"~> back to {name}"
    text = {"switch": f"-- {name} --", "unknown": f"<? {name} ?>"}.get(branch["kind"], name)
    return text if branch["confirmed"] else f"({text})"


def remarks(branch: dict[str, Any]) -> str:
    """Return what is known of a link, in brackets."""
    if branch["kind"] == "hidden":
        return ""
    found = [EVIDENCE.get(branch["evidence"], branch["evidence"])]
    if not branch["confirmed"]:
        from walt.client.formats import moment

        found.append(f"last seen {moment(branch['seen'])}")
    if branch["far_port"]:
        found.append(f"its port {branch['far_port']}")
    if branch["cables"]:
        found.append(f"{len(branch['cables'])} cables: {', '.join(branch['cables'])}")
    if branch["poe"] in ("on", "off"):
        reason = f" ({branch['poe_reason']})" if branch["poe_reason"] else ""
        found.append(f"PoE {branch['poe']}{reason}")
    return f"  [{'; '.join(found)}]"


def notes(branches: list[dict[str, Any]], age: float | None, show_all: bool) -> list[str]:
    """Return the lines below the tree."""
    lines = []
    if age is not None:
        lines.append(f"The network was explored {ago(age)} ago; to do it again: walt device rescan")
    if any(not branch["confirmed"] for branch in branches):
        lines.append("(name): not seen at the last look")
    if any(branch["kind"] == "unknown" for branch in branches):
        lines.append("<? name ?>: the type is not known; a switch: walt device config <name>"
                     " type=switch")
    if any(branch["kind"] == "back" for branch in branches):
        lines.append("~> back to: a cable that closes a loop")
    if not show_all:
        lines.append("Devices of unknown type, and switches without nodes: walt device tree --all")
    return lines


def ago(seconds: float) -> str:
    """Return a time in words."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


# -- ports -----------------------------------------------------------------


def port_config(switch_name: str, port_id: str | None, configuration: list[str],
                json: bool) -> None:
    """Print or change settings of the ports of a switch."""
    words = list(configuration)
    if port_id is not None and "=" in port_id:
        words, port_id = [port_id, *words], None
    session = Session(Terminal())
    if words:
        if port_id is None:
            raise Failure(
                "which port? Write its number or name before the settings;"
                " see: walt device port-config --help", WRONG_WORDS,
            )
        switches.set_port(session, switch_name, port_id, words)
        print("Done.")
        return
    ports = switches.ports(session, switch_name, port_id)
    if json:
        _print_json(ports)
        return
    shown = ports if port_id is not None else [port for port in ports if worth(port)]
    print(f"Ports of {switch_name}:")
    print()
    for port in shown:
        print(port_line(port))
    print()
    if len(shown) < len(ports):
        print(f"Of the other {len(ports) - len(shown)} ports nothing special is known.")
    if any(port["poe"] == "unavailable" for port in shown):
        print(
            "poe=unavailable: poe.reboots is off, or it is not proved which port of the power"
            " supply\nthis is; see: walt help show switches"
        )


def worth(port: dict[str, Any]) -> bool:
    """Tell whether something is known of a port."""
    return bool(
        port["peer"] or port["poe_reason"] or port["poe"] == "off"
        or port["name"] != str(port["port"])
    )


def port_line(port: dict[str, Any]) -> str:
    """Return a port in one line."""
    peer = port["peer"] or "unknown"
    text = f'{port["port"]}: name="{port["name"]}" poe={port["poe"]} peer={peer}'
    comments = [port["poe_reason"]] if port["poe_reason"] else []
    comments.append(f"{port['interface']}; {port['numbers']}")
    if port["evidence"]:
        seen = EVIDENCE.get(port["evidence"], port["evidence"])
        comments.append(seen if port["confirmed"] else f"{seen}, not at the last look")
    if port["link"] != "unknown":
        comments.append(f"link {port['link']}")
    return f"{text}  # {'; '.join(comments)}"
