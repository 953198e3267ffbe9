"""`walt device`."""

from __future__ import annotations

from walt.client.commands.forgetting import SWITCHES, forgotten
from walt.client.commands.planning import PLAN, REMOVED, planned, tell_plan
from walt.client.commands.planning import SWITCHES as PLANS
from walt.client.errors import Failure
from walt.client.grammar import Arg, Command, Switch
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block, table
from walt.common.tables import without_empty_columns

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

COLUMNS = ["name", "ip", "mac", "type", "netsetup", "switch", "port"]
UNKNOWN_HELP = (
    "A board stays here until the server has the default image of its model.\n"
    "If one of these is a switch: walt device config <name> type=switch"
)


def show(json: bool) -> None:
    """Print every device."""
    tables = Session(Terminal()).json("cs.devices.show", "tables")
    if json:
        from walt.client.output import print_json

        print_json(tables)
        return
    _print(
        "The network has the following devices:", tables["known"],
        "A device that is gone stays listed until: walt device forget <name>",
    )
    if tables["unknown"]:
        _print("Devices of unknown type:", tables["unknown"], UNKNOWN_HELP)


def _print(title: str, rows: list[dict[str, Any]], footnote: str | None = None) -> None:
    rows = [
        {**row, "type": f"node ({row['node_type']})" if row["node_type"] else row["type"]}
        for row in rows
    ]
    print_block(title, table(without_empty_columns(COLUMNS, rows), rows), footnote)


def tree(all: bool, json: bool) -> None:
    """Print how the devices are connected."""
    from walt.client.commands import switches

    switches.tree(all, json)


def rescan(device_set: str, json: bool) -> int:
    """Ask switches what is connected to them."""
    from walt.client.commands import switches

    return switches.rescan(device_set, json)


def port_config(
    switch_name: str, port_id: str | None, configuration: list[str], json: bool
) -> None:
    """Print or change settings of the ports of a switch."""
    from walt.client.commands import switches

    switches.port_config(switch_name, port_id, configuration, json)


def changes(since: str, json: bool) -> None:
    """Print what was changed."""
    from walt.client.commands import changes as record

    record.show(since, json)


def rename(old_name: str, new_name: str) -> None:
    """Give a device another name."""
    Session(Terminal()).call("cs.devices.rename", name=old_name, new_name=new_name)


def config(device_set: str, configuration: list[str], plan: bool, json: bool) -> int:
    """Print or change settings of devices."""
    from walt.client.commands import settings
    from walt.client.commands.asking import may_disturb
    from walt.client.operations.configuration import change

    session = Session(Terminal())
    if configuration and planned(plan, json):
        return tell_plan(session, json, devices=device_set, settings=configuration)
    if not configuration:
        settings.show(session, device_set, False, json)
        return 0
    if not may_disturb(session, device_set, others_pass=True):
        return 1
    change(session, device_set, configuration, False)
    return 0


def ping(device_name: str) -> int:
    """Ping a device from the server."""
    from walt.client import remote

    return remote.ping(device_name)


def forget(device_name: str, force: bool, keep_logs: bool, plan: bool, json: bool) -> int:
    """Remove a device and everything known about it."""
    if planned(plan, json):
        return tell_plan(Session(Terminal()), json, REMOVED, devices=device_name)
    if not forgotten(Session(Terminal()), "cs.devices.forget", device_name, force, keep_logs):
        return 1
    print("done.")
    return 0


def shell(device_name: str, user: str) -> int:
    """Open a shell on a device that is not a node."""
    from walt.client import remote
    from walt.client.terminal import ask

    session = Session(Terminal())
    device = session.json("cs.devices.get", "device", name=device_name)
    session.close()
    if device["type"] == "node":
        raise Failure(f"{device_name} is a node; use: walt node shell {device_name}")
    return remote.device_shell(device_name, user or ask("SSH user name: ") or "root")


def expose(device_name: str, device_port: str, local_port: str) -> int:
    """Have a port of this machine lead to a port of a device."""
    from walt.client.commands.asking import may_disturb
    from walt.client.commands.exposing import expose
    from walt.client.operations.exposing import parse_port

    port, here = parse_port(device_port), parse_port(local_port)
    session = Session(Terminal())
    name = session.json("cs.devices.get", "device", name=device_name)["name"]
    if not may_disturb(session, name, others_pass=True):
        return 1
    session.close()
    return expose(name, port, here)


JSON = Switch("--json", "print JSON for programs")
DEVICE = Arg("device_name")

COMMANDS = {
    "show": Command(show, "print the devices of the platform", switches=[JSON]),
    "shell": Command(
        shell, "open a shell on a device that is not a node", args=[DEVICE],
        switches=[Switch("--user", "account on the device", metavar="USER", default="")],
    ),
    "tree": Command(
        tree, "print how the devices are connected",
        switches=[Switch("--all", "devices of unknown type and switches without nodes, too"), JSON],
    ),
    "rescan": Command(
        rescan, "ask switches what is connected to them",
        args=[Arg("device_set", default="server,explorable-switches", set_of="switches")],
        switches=[JSON],
    ),
    "rename": Command(rename, "rename a device", args=[Arg("old_name"), Arg("new_name")]),
    "config": Command(
        config, "print or change settings of devices",
        args=[Arg("device_set", set_of="devices"), Arg("configuration", variadic=True)],
        switches=[PLAN, JSON],
    ),
    "ping": Command(ping, "ping a device from the server", args=[DEVICE]),
    "forget": Command(
        forget, "remove a device that is gone", args=[DEVICE],
        switches=[*SWITCHES, *PLANS],
    ),
    "expose": Command(
        expose, "forward a port of this machine to a port of a device",
        args=[DEVICE, Arg("device_port"), Arg("local_port")],
    ),
    "port-config": Command(
        port_config, "print or change settings of the ports of a switch",
        args=[
            Arg("switch_name"), Arg("port_id", optional=True),
            Arg("configuration", variadic=True),
        ],
        switches=[JSON],
    ),
    "changes": Command(
        changes, "print what was changed, when and by whom",
        switches=[
            Switch(
                "--since", "a date, a checkpoint, or a time ago as -2h", metavar="WHEN",
                default="-1d",
            ), JSON,
        ],
    ),
}
