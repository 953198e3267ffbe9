"""The address plan of walt-net: who has which address, what is free (spec node-protocols §2.4)."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from functools import cached_property
from ipaddress import AddressValueError, IPv4Address, IPv4Interface
from itertools import pairwise


def address_number(text: str) -> int | None:
    """Return an IPv4 address in dotted notation as an integer, None if it is not one."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
    except (OSError, ValueError):
        return None


def dotted(number: int) -> str:
    """Return the dotted notation of an address given as an integer."""
    return socket.inet_ntoa(number.to_bytes(4, "big"))


class AddressPlan:
    """Addresses of one subnet: the server's, those in use, the free ones.

    `interface` is the server's address with its prefix; `used` holds the
    addresses recorded for devices, as texts or numbers (those outside the subnet are ignored). All
    answers are computed on integers, from `first` to `last`: a /20 with 4,000
    devices takes milliseconds.
    """

    def __init__(self, interface: IPv4Interface, used: Iterable[str | int]) -> None:
        self.interface = interface
        network = interface.network
        self.first = int(network.network_address) + 1
        self.last = int(network.broadcast_address) - 1
        if network.prefixlen >= 31:  # RFC 3021: no network and broadcast addresses
            self.first, self.last = self.first - 1, self.last + 1
        known = [text if isinstance(text, int) else address_number(text) for text in used]
        first, last = self.first, self.last
        self._taken = {
            number for number in (int(interface.ip), *known)
            if number is not None and first <= number <= last
        }

    @cached_property
    def _runs(self) -> tuple[tuple[int, int], ...]:
        taken = [self.first - 1, *sorted(self._taken), self.last + 1]
        return tuple([
            (one + 1, other - 1) for one, other in pairwise(taken) if other - one > 1
        ])

    def contains(self, text: str) -> bool:
        """Tell whether `text` is a host address of the subnet."""
        number = address_number(text)
        return number is not None and self.first <= number <= self.last

    def is_free(self, text: str) -> bool:
        """Tell whether `text` is a host address of the subnet that nobody has."""
        return self.contains(text) and address_number(text) not in self._taken

    def free_ranges(self) -> tuple[tuple[str, str], ...]:
        """Return the free addresses as contiguous runs (first, last), in order."""
        return tuple((dotted(first), dotted(last)) for first, last in self._runs)

    def free_addresses(self) -> Iterator[str]:
        """Yield every free address, in order."""
        for first, last in self._runs:
            for number in range(first, last + 1):
                yield dotted(number)

    def lowest_free(self) -> IPv4Address | None:
        """Return the lowest free address, None when the subnet is full."""
        return IPv4Address(self._runs[0][0]) if self._runs else None


def parse_address(text: str) -> IPv4Address | None:
    """Return the address written in `text` (an IPv6-mapped one too), None if invalid."""
    plain = text[7:] if text.lower().startswith("::ffff:") else text
    try:
        return IPv4Address(plain)
    except AddressValueError:
        return None
