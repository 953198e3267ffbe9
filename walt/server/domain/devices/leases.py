"""What dhcpd tells of a device."""

from __future__ import annotations

from dataclasses import dataclass

from walt.common.leases import Sighting, sighting


@dataclass(frozen=True)
class Lease:
    """A lease: who has which address, and what the client said of itself.

    `active` tells whether it still holds; `known` and `dev_type` what dhcpd was told of the
    device.
    """

    mac: str
    ip: str
    vci: str = ""
    uci: str = ""
    client_name: str = ""
    known: bool = False
    dev_type: str = "unknown"
    active: bool = True

    def sighting(self) -> Sighting | None:
        """Return what to register, None when the lease brings nothing new."""
        return sighting(
            self.vci, self.uci, self.ip, self.mac, self.client_name, self.known, self.dev_type
        )
