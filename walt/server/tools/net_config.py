"""`walt-net-config up|down`: set the networks of server.conf up or down (spec node-protocols §1.3).

The environment variable IFACE, when set, names the only network concerned;
WALT_SERVER_CONF another configuration file than /etc/walt/server.conf.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from walt.common.errors import Invalid, WaltError
from walt.server.adapters.network.links import Links
from walt.server.adapters.network.plans import BRIDGE, LinkPlan
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.config.model import ServerConfig
from walt.server.domain.network.firewall import FirewallConfig
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.reactors import IReactor

USAGE = "Usage: walt-net-config up|down"


def selected(config: ServerConfig, only: str | None) -> list[LinkPlan]:
    """Return the networks to treat, walt-net first. Raises Invalid for an unknown one."""
    names = sorted(config.networks, key=lambda name: (name != BRIDGE, name))
    if only is not None:
        if only not in config.networks:
            raise Invalid(f"IFACE={only}: server.conf declares no such network")
        names = [only]
    return [
        LinkPlan(network.name, network.raw_device, network.vlan, network.ip)
        for network in (config.networks[name] for name in names)
    ]


def guarded_interface(config: ServerConfig) -> str | None:
    """Return the interface below the bridge whose 802.1Q frames are dropped.

    A dummy interface receives none.
    """
    network = config.networks[BRIDGE]
    plan = LinkPlan(network.name, network.raw_device, network.vlan)
    return None if network.raw_device is None else plan.base


async def bring(
    action: str, config: ServerConfig, links: Links, firewall: NftFirewall,
    only: str | None = None,
) -> None:
    """Do `up` or `down` on the networks of `config`, the frame filter included.

    Raises WaltError for the first network that fails.
    """
    if only is None:
        for plan in links.no_longer_wanted(config.networks):
            await links.down(plan)
    for plan in selected(config, only):
        if action == "up":
            await links.up(plan)
        else:
            await links.down(plan)
        if plan.name == BRIDGE:
            guarded = guarded_interface(config)
            if action == "down":
                await firewall.remove()
            elif guarded is not None:
                await firewall.apply(FirewallConfig(config.subnet, (), guarded))


def main() -> None:
    """Run the command line; exit status 0, 1 for an error, 2 for wrong usage."""
    arguments = sys.argv[1:]
    if len(arguments) != 1 or arguments[0] not in ("up", "down"):
        print(USAGE, file=sys.stderr)
        raise SystemExit(2)

    async def work(reactor: IReactor) -> None:
        try:
            config = load(Path(os.environ.get("WALT_SERVER_CONF", str(DEFAULT_FILE))))
            runner = ProcessRunner(reactor)
            await bring(
                arguments[0], config, Links(reactor, runner, config.paths.state),
                NftFirewall(runner), os.environ.get("IFACE"),
            )
        except WaltError as error:
            print(f"walt-net-config: {error}", file=sys.stderr)
            raise SystemExit(1) from None

    react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    main()
