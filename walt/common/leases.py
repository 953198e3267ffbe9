"""What a DHCP lease event tells the server (spec node-protocols §2.5).

Shared by the server, which reads events from dhcpd's output, and by
`walt-dhcp-event`. Every text comes from a device: it is data, whatever it holds.
"""

from typing import NamedTuple, Optional

NODE_CLASS = "walt.node."


class Sighting(NamedTuple):
    """What announced a device: a lease, a neighbour of a switch, a virtual host.

    `vci` and `uci` are its DHCP vendor class and user class, `name` is a proposal; `known_as`
    is the type that dhcpd had been told when it gave the lease, None if it knew no such device.
    """

    mac: str
    ip: Optional[str] = None
    vci: str = ""
    uci: str = ""
    name: Optional[str] = None
    known_as: Optional[str] = None

    @property
    def is_news(self) -> bool:
        """Whether there is something to register.

        A typed device is known for good; a known device of type `unknown` is
        reported again only when it announces itself as a node.
        """
        if self.known_as is None:
            return True
        return self.known_as == "unknown" and (
            self.uci.startswith(NODE_CLASS) or self.vci.startswith(NODE_CLASS)
        )


def proposed_name(client_name: str, mac: str, force: bool = False) -> Optional[str]:
    """Return the device name that a lease event proposes, None when the client gave none.

    Unless it ends so already, or `force` is true, the last six digits of the
    MAC address are added and the whole is lower-cased.
    """
    if not client_name:
        return None
    suffix = mac.replace(":", "")[-6:]
    if force or client_name.lower().endswith(suffix):
        return client_name
    return ("%s-%s" % (client_name, suffix)).lower()
