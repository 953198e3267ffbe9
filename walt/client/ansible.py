"""`walt-ansible-inventory`: nodes as a dynamic inventory of ansible.

Ansible runs it with --list, or --host NAME (developing dynamic inventory, docs.ansible.com).
WALT_ANSIBLE_NODES says which nodes: a set of `walt help show device-sets`, my-nodes by itself.
"""

from __future__ import annotations

import os
import re
import shlex
import sys

from walt.client.errors import FAILED, WRONG_WORDS, Failure, Refused

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

USAGE = "Usage: walt-ansible-inventory --list | --host NAME"
FACTS = ("model", "image", "ip", "mac", "booted", "virtual")


def main() -> None:
    """Print the inventory, or one host, as JSON; exit with 0, 1 (failure) or 2 (wrong words)."""
    words = sys.argv[1:]
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0)
    if words != ["--list"] and not (len(words) == 2 and words[0] == "--host"):
        print(USAGE, file=sys.stderr)
        sys.exit(WRONG_WORDS)
    try:
        hosts = _hosts(os.environ.get("WALT_ANSIBLE_NODES") or "my-nodes")
    except Failure as failure:
        print(f"walt: {failure}", file=sys.stderr)
        sys.exit(failure.status or FAILED)
    from walt.client.output import print_json

    if words[0] == "--list":
        print_json(inventory(hosts))
    else:
        # One that is not of the set has nothing to tell: ansible asks for localhost, too.
        print_json(hosts.get(words[1], {}))


def _hosts(node_set: str) -> dict[str, dict[str, Any]]:
    """Return the variables of each node of a set, by name. Raises Failure."""
    from walt.client.operations import ssh
    from walt.client.session import Session

    session = Session()
    try:
        nodes = session.json("cs.nodes.get", "nodes", nodes=node_set)
    except Refused as refused:
        if refused.code == "INVALID" and node_set == "my-nodes":
            return {}  # who owns no node has an inventory without hosts
        raise
    host_key = ssh.known(session)
    found = {}
    for node in nodes:
        words = [
            f"-o {shlex.quote(f'{key}={value}')}"
            for key, value in ssh.options(node["name"], host_key)
            if key not in ("HostName", "User")
        ]
        found[node["name"]] = {
            "ansible_host": node["name"], "ansible_user": "root", "ansible_port": ssh.PORT,
            "ansible_ssh_common_args": " ".join(words), "walt_owner": ssh.owner(node),
            **{f"walt_{name}": node[name] for name in FACTS},
        }
    return found


def inventory(hosts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the inventory: all nodes in group walt, and one group for each model and image."""
    groups: dict[str, list[str]] = {"walt": []}
    for name, facts in hosts.items():
        groups["walt"].append(name)
        for kind in ("model", "image"):
            if facts.get(f"walt_{kind}"):
                groups.setdefault(group_name(kind, facts[f"walt_{kind}"]), []).append(name)
    return {
        "_meta": {"hostvars": hosts},
        **{name: {"hosts": sorted(members)} for name, members in groups.items()},
    }


def group_name(kind: str, value: str) -> str:
    """Return a name that ansible takes for a group: letters, digits and underscores."""
    short = value.split("/", 1)[-1].removesuffix(":latest")
    return f"{kind}_" + re.sub(r"[^A-Za-z0-9_]", "_", short)


if __name__ == "__main__":
    main()
