"""TAP devices whose descriptor goes to another process (tun(4) of Linux: tuntap.rst)."""

from __future__ import annotations

import os

from zope.interface import implementer

from walt.common.errors import Invalid, Unavailable, in_words
from walt.common.ethernet import open_tap
from walt.server.adapters.network.links import BRIDGE, run_batch
from walt.server.adapters.network.taps import TAP_ALIAS
from walt.server.domain.network.firewall import is_interface_name
from walt.server.domain.vpn.interfaces import IVpnTaps
from walt.server.runtime.process import ProcessRunner


@implementer(IVpnTaps)
class VpnTaps:
    """Makes them in the network of this process, as ports of the bridge."""

    def __init__(self, runner: ProcessRunner) -> None:
        self._runner = runner

    async def open(self, name: str) -> int:
        """Return a descriptor of a new device on walt-net."""
        if not is_interface_name(name):
            raise Invalid(f"{name!r} is not a valid name for a network interface")
        try:
            tap = open_tap(name)
        except OSError as error:
            raise Unavailable(f"no network device for a tunnel: {in_words(error)}") from None
        try:
            await run_batch(self._runner, [
                f'link set dev {name} alias "{TAP_ALIAS}" addrgenmode none',
                f"link set dev {name} master {BRIDGE} up",
            ])
        except BaseException:
            os.close(tap)
            raise
        return tap
