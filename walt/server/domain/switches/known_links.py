"""Links that are known, found by the devices at their ends: there may be ten thousand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from walt.server.domain.switches.topology import End, Link


class KnownLinks:
    """Links, changed by those that come and go."""

    def __init__(self, links: Iterable[Link] = ()) -> None:
        self._of: dict[str, tuple[Link, ...]] = {}  # by MAC, the best ones first
        self.change((), links)

    def __iter__(self) -> Iterator[Link]:
        """Yield each of them, in no particular order."""
        for mac, links in self._of.items():
            for link in links:
                if link.first[0] == mac:
                    yield link

    def __bool__(self) -> bool:
        return bool(self._of)

    def devices(self) -> Iterable[str]:
        """Return the MACs of the devices that have links."""
        return self._of.keys()

    def of(self, mac: str) -> Sequence[Link]:
        """Return the links of a device, the best ones first."""
        return self._of.get(mac, ())

    def at(self, end: End) -> list[Link]:
        """Return the links at a port of a device."""
        return [link for link in self.of(end[0]) if end in link.ends]

    def change(self, gone: Iterable[Link], added: Iterable[Link]) -> None:
        """Know some of them no more, and others."""
        touched: dict[str, dict[Link, None]] = {}

        def of(mac: str) -> dict[Link, None]:
            if mac not in touched:
                touched[mac] = dict.fromkeys(self.of(mac))
            return touched[mac]

        for link in gone:
            for mac in link.macs:
                of(mac).pop(link, None)
        for link in added:
            for mac in link.macs:
                of(mac)[link] = None
        for mac, links in touched.items():
            if links:
                self._of[mac] = tuple(sorted(links, key=lambda link: link.rank, reverse=True))
            else:
                self._of.pop(mac, None)
