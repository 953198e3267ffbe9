"""`walt-set-poe`: switch the power of one port, without the server's help (spec server §1.11).

    walt-set-poe SWITCH-IP PORT on|off SNMP-VERSION COMMUNITY

PORT is the number of the interface (ifIndex). No power is switched on a guess: the switch has to
tell which part of its power supply feeds that interface. Status: 0 done; 1 with the reason alone
on standard error; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from walt.common.errors import Unavailable, WaltError
from walt.server.adapters.snmp.switches import SnmpSwitches
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.switches.interfaces import ISwitches, SnmpTarget
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.workers import WorkerPool

NO_POWER, TROUBLE = "node seems not PoE-powered", "SNMP issue"
VERSIONS = {"1": 1, "2": 2, "2c": 2}


async def switched(switches: ISwitches, target: SnmpTarget, port: int, on: bool) -> str | None:
    """Switch the power of a port; return why that was not done, None if it was."""
    (survey,) = await switches.read([target])
    if survey.failure is not None:
        return TROUBLE
    power = survey.power_of(port)
    if power is None:
        return NO_POWER
    wanted = power.on if on else power.off
    try:
        return None if await switches.set(target, power.control, wanted) == wanted else TROUBLE
    except Unavailable:
        return TROUBLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="walt-set-poe", allow_abbrev=False)
    parser.add_argument("switch", metavar="SWITCH-IP")
    parser.add_argument("port", type=int, metavar="PORT")
    parser.add_argument("power", choices=("on", "off"))
    parser.add_argument("version", choices=sorted(VERSIONS))
    parser.add_argument("community")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line of the process."""
    parser = _parser()
    given = parser.parse_args(words)
    if parse_address(given.switch) is None or given.port < 1:
        parser.error("expected an IPv4 address, and the number of a port")
    target = SnmpTarget(given.switch, VERSIONS[given.version], given.community)
    outcome: list[str | None] = []

    async def work(reactor: IReactor) -> None:
        workers = WorkerPool(reactor, Launcher(), size=1)
        try:
            outcome.append(await switched(
                SnmpSwitches(workers), target, given.port, given.power == "on"
            ))
        except WaltError as error:
            outcome.append(type(error).__name__)
        finally:
            await workers.stop()

    # react ends the process; its status is decided below.
    try:
        react(lambda reactor: Deferred.fromCoroutine(work(reactor)), [])
    except SystemExit:
        pass
    reason = outcome[0] if outcome else TROUBLE
    if reason is not None:
        print(reason, file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
