"""Simulated switches: `python -m bench.switches.agents COUNT PORTS` prints where they answer."""

from __future__ import annotations

import sys
from typing import Any

from tests.server.adapters.snmp.agent import Agent
from tests.system.switch_lab import Switch


def main() -> None:
    """Listen on loopback until somebody ends the process."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    count, ports = (int(word) for word in sys.argv[1:])
    for number in range(count):
        switch = Switch(f"switch-{number}", f"02:00:00:00:{number:02x}:00", ports)
        for port in range(1, ports + 1):
            switch.sees(f"02:00:00:01:{number:02x}:{port:02x}", port)
        served = reactor.listenUDP(0, Agent(switch.answer), interface="127.0.0.1")
        print(served.getHost().port)
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main()
