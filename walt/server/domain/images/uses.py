"""Which node may read which image, and until when (spec server §4.4).

A node that was given another image runs on the former one until it has rebooted: its
use of that image ends a grace time later. An image is mounted as long as it has a use.
"""

from __future__ import annotations
from typing import NamedTuple

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

GRACE = 60.0  # seconds


class Use(NamedTuple):
    """A node (its MAC) that reads an image from its address (None: it has none yet)."""

    image_id: str
    mac: str
    ip: str | None


class ImageUses:
    """The uses of images. Times are seconds of one clock. An update costs what changed."""

    def __init__(self) -> None:
        self._current: dict[str, Use] = {}  # by MAC
        self._ending: dict[tuple[str, str], tuple[Use, float]] = {}
        self._left_overs: dict[str, float] = {}
        self._counts: Counter[str] = Counter()  # uses of each image
        self._addresses: dict[str, Counter[str]] = {}  # of the uses of each image
        self._readers: dict[str, frozenset[str]] = {}

    def adopt(self, image_ids: Collection[str], now: float) -> None:
        """Keep images that a former server left mounted for the grace time."""
        self._left_overs = {image_id: now + GRACE for image_id in image_ids}

    def update(self, wanted: Mapping[str, Use | None], now: float) -> None:
        """Take what some nodes (by MAC) are to boot now, None for nothing.

        Uses that are not wanted any more get an end.
        """
        for _ in self.updating(wanted, now):
            pass

    def updating(self, wanted: Mapping[str, Use | None], now: float) -> Iterator[None]:
        """Do what `update` does, a use at each step: who iterates, to the end, may pause."""
        for mac, use in wanted.items():
            former = self._current.pop(mac, None)
            if former is not None:
                self._count(former, -1)
                if use is None or use.image_id != former.image_id:
                    self._ending[former.image_id, mac] = former, now + GRACE
                    self._count(former, 1)
            if use is not None:
                self._end((use.image_id, mac))
                self._current[mac] = use
                self._count(use, 1)
            yield
        for key in [key for key, (_, end) in self._ending.items() if end <= now]:
            self._end(key)
            yield
        self._left_overs = {
            image_id: end for image_id, end in self._left_overs.items() if end > now
        }

    def _end(self, key: tuple[str, str]) -> None:
        found = self._ending.pop(key, None)
        if found is not None:
            self._count(found[0], -1)

    def _count(self, use: Use, number: int) -> None:
        _add(self._counts, use.image_id, number)
        if use.ip is not None:
            _add(self._addresses.setdefault(use.image_id, Counter()), use.ip, number)
            self._readers.pop(use.image_id, None)

    def images(self) -> frozenset[str]:
        """Return the ids of the images that must stay mounted."""
        return frozenset(self._counts.keys() | self._left_overs.keys())

    def readers(self) -> Mapping[str, frozenset[str]]:
        """Return the addresses that may read each image; the same set where none changed."""
        for image_id in [image_id for image_id, ips in self._addresses.items() if not ips]:
            del self._addresses[image_id]
        for image_id, ips in self._addresses.items():
            if image_id not in self._readers:
                self._readers[image_id] = frozenset(ips)
        return {image_id: self._readers[image_id] for image_id in self._addresses}

    def next_end(self) -> float | None:
        """Return when the next use ends, None when no end is known."""
        ends = [end for _, end in self._ending.values()]
        return min([*ends, *self._left_overs.values()], default=None)


def _add(counts: Counter[str], key: str, number: int) -> None:
    counts[key] += number
    if not counts[key]:
        del counts[key]
