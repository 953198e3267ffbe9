"""Which node may read which image, and until when (spec server §4.4).

A node that was given another image runs on the former one until it has rebooted: its
use of that image ends a grace time later. An image is mounted as long as it has a use.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

GRACE = 60.0  # seconds


@dataclass(frozen=True)
class Use:
    """A node (its MAC) that reads an image from its address (None: it has none yet)."""

    image_id: str
    mac: str
    ip: str | None


class ImageUses:
    """The uses of images. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str], tuple[Use, float | None]] = {}  # None: no end known
        self._left_overs: dict[str, float] = {}

    def adopt(self, image_ids: Collection[str], now: float) -> None:
        """Keep images that a former server left mounted for the grace time."""
        self._left_overs = {image_id: now + GRACE for image_id in image_ids}

    def update(self, wanted: Collection[Use], now: float) -> None:
        """Take what nodes are to boot now; uses that are not wanted any more get an end."""
        present = {(use.image_id, use.mac): use for use in wanted}
        for key, (use, end) in list(self._uses.items()):
            if key in present:
                continue
            if end is None:
                self._uses[key] = (use, now + GRACE)
            elif end <= now:
                del self._uses[key]
        self._uses.update({key: (use, None) for key, use in present.items()})
        self._left_overs = {one: end for one, end in self._left_overs.items() if end > now}

    def images(self) -> frozenset[str]:
        """Return the ids of the images that must stay mounted."""
        return frozenset({image_id for image_id, _ in self._uses} | self._left_overs.keys())

    def readers(self) -> Mapping[str, frozenset[str]]:
        """Return the addresses that may read each image."""
        found: dict[str, set[str]] = {}
        for use, _ in self._uses.values():
            if use.ip is not None:
                found.setdefault(use.image_id, set()).add(use.ip)
        return {image_id: frozenset(ips) for image_id, ips in found.items()}

    def next_end(self) -> float | None:
        """Return when the next use ends, None when no end is known."""
        ends = [end for _, end in self._uses.values() if end is not None]
        return min([*ends, *self._left_overs.values()], default=None)
