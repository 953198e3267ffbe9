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

DEFAULT_SET = "server,explorable-switches"
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


def label(one: dict[str, Any]) -> str:
    """Return a device as the tree shows it."""
    name = one["name"]
    if one["kind"] == "hidden":
        if not one["explorable"]:
            return "[...] ~> exploring this switch is forbidden by its configuration"
        return "[...] ~> no node here"
    if one["kind"] == "back":
        return f"~> back to {name}"
    text = {"switch": f"-- {name} --", "unknown": f"<? {name} ?>"}.get(one["kind"], name)
    return text if one["confirmed"] else f"({text})"


def remarks(one: dict[str, Any]) -> str:
    """Return what is known of a link, in brackets."""
    if one["kind"] == "hidden":
        return ""
    found = [EVIDENCE.get(one["evidence"], one["evidence"])]
    if not one["confirmed"]:
        from walt.client.formats import moment

        found.append(f"last seen {moment(one['seen'])}")
    if one["far_port"]:
        found.append(f"its port {one['far_port']}")
    if one["cables"]:
        found.append(f"{len(one['cables'])} cables: {', '.join(one['cables'])}")
    if one["poe"] in ("on", "off"):
        reason = f" ({one['poe_reason']})" if one["poe_reason"] else ""
        found.append(f"PoE {one['poe']}{reason}")
    return f"  [{'; '.join(found)}]"


def notes(branches: list[dict[str, Any]], age: float | None, show_all: bool) -> list[str]:
    """Return the lines below the tree."""
    lines = []
    if age is not None:
        lines.append(f"The network was explored {ago(age)} ago; to do it again: walt device rescan")
    if any(not branch["confirmed"] for branch in branches):
        lines.append("(name): not seen at the last look")
    if any(one["kind"] == "unknown" for one in branches):
        lines.append("<? name ?>: the type is not known; a switch: walt device config <name>"
                     " type=switch")
    if any(one["kind"] == "back" for one in branches):
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
    for one in shown:
        print(port_line(one))
    print()
    if len(shown) < len(ports):
        print(f"Of the other {len(ports) - len(shown)} ports nothing special is known.")
    if any(one["poe"] == "unavailable" for one in shown):
        print(
            "poe=unavailable: poe.reboots is off, or it is not proved which port of the power"
            " supply\nthis is; see: walt help show switches"
        )


def worth(one: dict[str, Any]) -> bool:
    """Tell whether something is known of a port."""
    return bool(
        one["peer"] or one["poe_reason"] or one["poe"] == "off" or one["name"] != str(one["port"])
    )


def port_line(one: dict[str, Any]) -> str:
    """Return a port in one line."""
    peer = one["peer"] or "unknown"
    text = f'{one["port"]}: name="{one["name"]}" poe={one["poe"]} peer={peer}'
    comments = [one["poe_reason"]] if one["poe_reason"] else []
    comments.append(f"{one['interface']}; {one['numbers']}")
    if one["evidence"]:
        seen = EVIDENCE.get(one["evidence"], one["evidence"])
        comments.append(seen if one["confirmed"] else f"{seen}, not at the last look")
    if one["link"] != "unknown":
        comments.append(f"link {one['link']}")
    return f"{text}  # {'; '.join(comments)}"
