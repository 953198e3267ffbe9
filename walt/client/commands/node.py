"""`walt node`."""

from __future__ import annotations

import sys

from walt.client.commands.asking import confirmed, may_disturb
from walt.client.commands.forgetting import SWITCHES, forgotten
from walt.client.commands.planning import PLAN, REMOVED, planned, tell_plan
from walt.client.commands.planning import SWITCHES as PLANS
from walt.client.errors import Failure
from walt.client.grammar import Arg, Command, Switch
from walt.client.operations import nodes
from walt.client.operations.nodes import TooLate, ownership, single, wait_booted
from walt.client.operations.rebooting import reboot as restart
from walt.client.session import Session
from walt.client.terminal import WAITING, Terminal, print_block, table, table_of_columns

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

OWN = ["name", "type", "model", "image", "ip", "netsetup", "booted"]
FREE = ["name", "type", "model", "ip", "netsetup", "booted"]
OTHERS = [
    "name", "type", "model", "image-owner", "clonable-image-link", "ip", "netsetup", "booted",
]
KINDS = {
    "own": ("You own the following nodes:", OWN),
    "free": ("The following nodes are free:", FREE),
    "others": ("The following nodes belong to other users:", OTHERS),
}
OWNERSHIP_HELP = "See `walt help show node-ownership`."


def show(all: bool, names_only: bool, json: bool) -> None:
    """Print the nodes of the caller, or all of them."""
    session = Session(Terminal())
    if json:
        from walt.client.output import print_written

        print_written(session.call("cs.nodes.show", all=all), "tables", "total")
        return
    tables = nodes.listed(session, all)
    if names_only:
        place = tables["columns"].index("name")
        for name in sorted(row[place] for kind in KINDS for row in tables[kind]):
            print(name)
    else:
        _show_tables(tables, all)


def _show_tables(tables: dict[str, Any], show_all: bool) -> None:
    from walt.client.formats import moment

    for kind, (title, names) in KINDS.items():
        if tables[kind]:
            print_block(title, table_of_columns(names, _columns(tables["columns"], tables[kind])))
    troubled = _those_with("trouble", tables)
    if troubled:
        print_block(
            "The following nodes cannot boot at present (the server goes on trying):",
            table(["name", "trouble"], troubled),
        )
    reserved = _those_with("reserved_by", tables)
    if reserved:
        print_block("Scripts have reserved the following nodes:", table(
            ["name", "reserved-by", "until"], [
                {**row, "reserved-by": row["reserved_by"], "until": moment(row["reserved_until"])}
                for row in reserved
            ],
        ))
    if not show_all:
        if not tables["own"]:
            print("You do not own any node.")
        print("Use `walt node show --all` to see every node of the platform.")
    elif tables["total"] == 0:
        print("This platform has no node yet. Create a virtual one: walt node create <name>")
    elif not tables["free"] and not tables["others"]:
        print("There are no other nodes on this platform.")
    print(OWNERSHIP_HELP)


def _columns(names: list[str], rows: list[list[Any]]) -> dict[str, Sequence[Any]]:
    """Return rows as the columns that are shown, by title."""
    found: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows)))
    found["booted"] = [
        "yes" if booted else "no (powersave)" if powersave else "NO"
        for booted, powersave in zip(found["booted"], found["powersave"])
    ]
    found["image"], found["image-owner"] = found["image_name"], found["owner"]
    found["clonable-image-link"] = found["clonable_image_link"]
    return found


def _those_with(name: str, tables: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes, few of them, that have something in a column."""
    names = tables["columns"]
    place = names.index(name)
    return [dict(zip(names, row)) for kind in KINDS for row in tables[kind] if row[place]]


def create(node_name: str) -> None:
    """Create a virtual node."""
    Session(Terminal("Registering virtual node")).call("cs.nodes.create", name=node_name)


def remove(
    node_name: str, force: bool, keep_logs: bool, plan: bool, json: bool
) -> int:
    """Remove a virtual node, after the ownership check."""
    session = Session(Terminal())
    if planned(plan, json):
        return tell_plan(session, json, REMOVED, devices=node_name)
    if not may_disturb(session, node_name):
        return 1
    return 0 if forgotten(session, "cs.nodes.remove", node_name, force, keep_logs) else 1


def boot(node_set: str, image_name_or_default: str, plan: bool, json: bool) -> int:
    """Associate nodes with an image, then reboot them all."""
    session = Session(Terminal())
    whose = ownership(session, node_set, image_name_or_default)
    names = ",".join(whose.names)
    if planned(plan, json):
        return tell_plan(session, json, devices=names)
    if not confirmed(whose):
        return 1
    return 0 if nodes.boot(session, names, image_name_or_default) else 1


def reboot(node_set: str, hard: bool, plan: bool, json: bool) -> int:
    """Reboot nodes."""
    session = Session(Terminal("Rebooting"))
    names = ",".join(nodes.expand(session, node_set))
    if planned(plan, json):
        return tell_plan(session, json, devices=names)
    if not may_disturb(session, names):
        return 1
    return 0 if restart(session, names, hard, "reboot requested") else 1


def wait(node_set: str, timeout: int) -> int:
    """Wait until all nodes are booted; 1 when `timeout` seconds (if above 0) are over first."""
    try:
        wait_booted(Session(Terminal(WAITING)), node_set, timeout)
    except TooLate as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def boots(node_set: str, last: int, json: bool) -> None:
    """Print how nodes booted, and percentiles for each image."""
    from walt.client.operations import boots as records

    session = Session(Terminal())
    found = records.last_boots(
        nodes.expand(session, node_set), last,
        lambda some: session.json("cs.nodes.boots", "boots", nodes=some, count=last),
    )
    if json:
        from walt.client.output import print_json

        print_json({"boots": found, "images": records.statistics(found)})
    elif not found:
        print("No boot of these nodes is on record.")
    else:
        _show_boots(found, records.statistics(found))


def _show_boots(found: list[dict[str, Any]], images: list[dict[str, Any]]) -> None:
    from walt.client.formats import moment
    from walt.client.operations.boots import PERCENTILES, STAGES, elapsed

    rows = []
    for boot in found:
        reached = elapsed(boot)
        outcome = boot["outcome"]
        if outcome != "booted":
            outcome += f" after {boot['stage']}"
        rows.append({
            "node": boot["node"], "image": boot["image"] or "-", "asked": moment(boot["asked"]),
            "cause": boot["cause"] or "-", "tries": boot["tries"], "outcome": outcome,
            **{stage: f"{reached[stage]:.1f}" for stage in STAGES if stage in reached},
        })
    stages = list(STAGES[1:])
    print_block(
        "Seconds from the beginning of the last try to each stage:",
        table(["node", "image", "asked", "cause", "tries", *stages, "outcome"], [
            {**dict.fromkeys(stages, "-"), **row} for row in rows
        ]),
    )
    columns = [f"p{percent}" for percent in PERCENTILES]
    print_block(
        "Seconds until nodes were ready, by image:",
        table(["image", "boots", "booted", "failed", *columns], [
            {
                **row, "image": row["image"] or "-",
                **{
                    name: f"{row['ready'][name]:.1f}" if row["ready"] else "-" for name in columns
                },
            }
            for row in images
        ]),
    )


def run(node_set: str, cmdargs: list[str], term: bool, prefix: bool) -> int:
    """Run a command on nodes, all at once."""
    from walt.client import remote

    session = Session(Terminal(WAITING))
    names = nodes.expand(session, node_set)
    if not may_disturb(session, ",".join(names)):
        return 1
    wait_booted(session, ",".join(names))
    session.close()
    if len(names) == 1:
        return remote.one(names[0], " ".join(cmdargs), term, prefix)
    return remote.several(names, " ".join(cmdargs), prefix)


def shell(node_name: str) -> int:
    """Open a shell on one node."""
    from walt.client import remote
    from walt.client.stream import UNREACHABLE

    session = Session(Terminal(WAITING))
    name = single(session, node_name)
    if not may_disturb(session, name):
        return 1
    wait_booted(session, name)
    session.close()
    print("Caution: changes outside /persist are lost when the node reboots.")
    print("See `walt help show shells`.")
    sys.stdout.flush()
    return 1 if remote.one(name, "", True) == UNREACHABLE else 0


def console(node_name: str) -> int:
    """Attach to the console of a virtual node."""
    from walt.client.commands import console as attached

    session = Session(Terminal())
    name = single(session, node_name)
    if not may_disturb(session, name):
        return 1
    return attached.attach(session, name)


def acquire(node_set: str, plan: bool, json: bool) -> int:
    """Own free nodes: they boot copies of their default images."""
    session = Session(Terminal("Rebooting"))
    names = ",".join(nodes.expand(session, node_set))
    whose = ownership(session, names)
    if whose.owned:
        raise Failure(f"already yours: {', '.join(whose.owned)}. {OWNERSHIP_HELP}")
    if planned(plan, json):
        return tell_plan(session, json, devices=names)
    if not confirmed(whose):
        return 1
    return 0 if nodes.acquire(session, names, whose) else 1


def release(node_set: str, plan: bool, json: bool) -> int:
    """Give nodes back: they boot their default images and appear free."""
    session = Session(Terminal("Rebooting"))
    names = ",".join(nodes.expand(session, node_set))
    whose = ownership(session, names)
    if whose.free or whose.owners:
        told = [f"{name} (free)" for name in whose.free]
        told += [f"{name} ({owner}'s)" for name, owner in whose.owners.items()]
        raise Failure(f"not yours: {', '.join(sorted(told))}. {OWNERSHIP_HELP}")
    if planned(plan, json):
        return tell_plan(session, json, devices=names)
    return 0 if nodes.release(session, names) else 1


def config(node_set: str, configuration: list[str], plan: bool, json: bool) -> int:
    """Print or change settings of nodes."""
    from walt.client.commands import settings
    from walt.client.operations.configuration import change

    session = Session(Terminal())
    if configuration and planned(plan, json):
        return tell_plan(session, json, devices=node_set, settings=configuration, nodes_only=True)
    if not configuration:
        settings.show(session, node_set, True, json)
        return 0
    if not may_disturb(session, node_set):
        return 1
    change(session, node_set, configuration, True)
    return 0


def rename(old_node_name: str, new_node_name: str) -> int:
    """Give a node another name."""
    session = Session(Terminal())
    if not may_disturb(session, single(session, old_node_name)):
        return 1
    nodes.rename(session, old_node_name, new_node_name)
    return 0


def ping(node_name: str) -> int:
    """Ping a node from the server."""
    from walt.client import remote

    return remote.ping(single(Session(Terminal()), node_name))


def blink(node_name: str, duration: str) -> int:
    """Make the LED of a node blink for some seconds."""
    import time

    if not (duration.isascii() and duration.isdigit()):
        raise Failure(f"{duration!r} is not a number of seconds")
    session = Session(Terminal(WAITING))
    name = single(session, node_name)
    wait_booted(session, name)
    session.call("cs.nodes.blink", node=name, on=True)
    print(f"Node {name} blinks for {duration} seconds.")
    sys.stdout.flush()
    try:
        time.sleep(int(duration))
    finally:
        session.call("cs.nodes.blink", node=name, on=False)
    print("Done.")
    return 0


def cp(src: str, dst: str, plan: bool, json: bool) -> int:
    """Copy files to or from a node."""
    from walt.client.commands import copies

    return copies.node_cp(src, dst, planned(plan, json), json)


def save(node_name: str, image_name: str, plan: bool, json: bool) -> int:
    """Make an image of what changed on a node."""
    from walt.client.commands import copies

    if planned(plan, json):
        session = Session(Terminal())
        single(session, node_name)
        return tell_plan(session, json, image=image_name)
    return copies.node_save(node_name, image_name)


def expose(node_name: str, node_port: str, local_port: str) -> int:
    """Have a port of this machine lead to a port of a node."""
    from walt.client.commands.exposing import expose
    from walt.client.operations.exposing import parse_port

    port, here = parse_port(node_port), parse_port(local_port)
    session = Session(Terminal(WAITING))
    name = single(session, node_name)
    wait_booted(session, name)
    session.close()
    return expose(name, port, here)


def ssh_config(node_set: str, json: bool) -> None:
    """Print what lets ssh, scp and the like reach nodes."""
    from walt.client.commands import ssh

    ssh.config(node_set, json)


def ssh_proxy(node_name: str) -> int:
    """Carry a connection of ssh."""
    from walt.client.commands import ssh

    return ssh.proxy(node_name)


JSON = Switch("--json", "print JSON for programs")
NODE = Arg("node_name")
NODES = Arg("node_set", set_of="nodes")
_BOOT = [NODES, Arg("image_name_or_default")]

COMMANDS = {
    "show": Command(
        show, "print your nodes",
        switches=[
            Switch("--all", "print free nodes and nodes of other users, too"),
            Switch("--names-only", "print only names, one per line"),
            JSON,
        ],
    ),
    "acquire": Command(
        acquire, "get free nodes: they boot your default image", args=[NODES], switches=PLANS
    ),
    "release": Command(
        release, "give nodes back: they become free", args=[NODES], switches=PLANS
    ),
    "boot": Command(boot, "boot an image on nodes", args=_BOOT, switches=PLANS),
    "shell": Command(shell, "open a shell on a node", args=[NODE]),
    "run": Command(
        run, "run a command on nodes",
        args=[NODES, Arg("cmdargs", variadic=True)],
        switches=[
            Switch("--prefix", "begin each line with the name of its node", excludes=["--term"]),
            Switch("--term", "give the command a terminal on the node"),
        ],
    ),
    "cp": Command(
        cp, "copy files to or from a node, or into the image it boots",
        args=[Arg("src"), Arg("dst")],
        usage=[
            "walt node cp <local-path> <node>:<path>",
            "walt node cp <node>:<path> <local-path>",
            "walt node cp <node>:<path> booted-image",
        ],
        switches=PLANS,
    ),
    "save": Command(
        save, "make an image of what changed on a node since it booted",
        args=[NODE, Arg("image_name")], switches=PLANS,
    ),
    "reboot": Command(
        reboot, "reboot nodes", args=[NODES],
        switches=[
            Switch("--hard", "do not ask the operating system of the node first"), *PLANS,
        ],
    ),
    "config": Command(
        config, "print or change settings of nodes",
        args=[NODES, Arg("configuration", variadic=True)], switches=[PLAN, JSON],
    ),
    "create": Command(create, "create a virtual node", args=[NODE]),
    "remove": Command(
        remove, "remove a virtual node and all its data", args=[NODE],
        switches=[*SWITCHES, *PLANS],
    ),
    "rename": Command(
        rename, "rename a node", args=[Arg("old_node_name"), Arg("new_node_name")]
    ),
    "ping": Command(ping, "ping a node from the server", args=[NODE]),
    "console": Command(console, "attach to the console of a virtual node", args=[NODE]),
    "blink": Command(
        blink, "make the LED of a node blink", args=[NODE, Arg("duration", default="60")]
    ),
    "wait": Command(
        wait, "wait until nodes are booted", args=[NODES],
        switches=[
            Switch("--timeout", "give up after this time", metavar="SECONDS", kind=int, default=-1)
        ],
    ),
    "boots": Command(
        boots, "print how nodes booted, and how long images take to boot", args=[
            Arg("node_set", set_of="nodes", default="my-nodes"),
        ],
        switches=[
            Switch("--last", "so many boots of each node", metavar="COUNT", kind=int, default=10),
            JSON,
        ],
    ),
    "expose": Command(
        expose, "forward a port of this machine to a port of a node",
        args=[NODE, Arg("node_port"), Arg("local_port")],
    ),
    "ssh-config": Command(
        ssh_config, "print the configuration by which ssh reaches nodes",
        args=[Arg("node_set", set_of="nodes", default="my-nodes")], switches=[JSON],
    ),
    "ssh-proxy": Command(
        ssh_proxy, "carry a connection to the ssh port of a node (ProxyCommand of ssh)",
        args=[NODE],
    ),
    "deploy": Command(boot, "same as `walt node boot`", args=_BOOT, switches=PLANS),
}
