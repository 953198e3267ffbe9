"""What changed on the platform, when, and by whom: facts that are only ever added.

A device is known by its MAC, whatever its name. What nobody has said of it yet (type unknown) is
no fact: others on the network come and go.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from zope.interface import Interface

from walt.common.errors import Invalid
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.settings import HIDDEN, SECRETS

Kind = Literal["device", "name", "model", "image", "owner", "setting", "link", "stored-image"]
LONGEST = 1000  # characters of a value
CUT = "\N{HORIZONTAL ELLIPSIS} sha256:"  # then a digest of the whole: no value of less has it
DIGITS = 32  # of that digest
MASKED = SECRETS | {"snmp.community"}
YEAR_9999 = 253_370_764_800.0  # its first second
PAGE = 1000  # changes of one answer

Fact = tuple[Kind, str]
Cable = tuple[str, "int | None", str, "int | None"]  # MAC and port of both ends, the smaller first


@dataclass(frozen=True)
class Change:
    """One fact, before and after (None: there was none, there is none any more).

    `mac` is the device (None: an image of the store), `item` the name of a setting or of an image,
    the MAC at the other end of a link, or nothing; `who` the user whose call did it, None: the
    platform itself. `key` is its own: what is stored twice is there once.
    """

    kind: Kind
    mac: str | None
    item: str
    before: str | None
    after: str | None
    who: str | None = None
    key: str = field(default_factory=lambda: uuid4().hex, compare=False)


class Recorded(NamedTuple):
    """A change as it was stored: its number, which grows, and epoch seconds."""

    number: int
    moment: float
    change: Change


class IChanges(Interface):
    """Where changes are kept. All methods are coroutines."""

    async def since(moment: float, after: int | None, count: int) -> Sequence[Recorded]:
        """Return the first `count` changes since a moment, or those with numbers above `after`.

        Who goes on with the last number misses none, whatever the clock of the database does:
        no change gets a smaller one later.
        """


def facts(device: Device | None) -> dict[Fact, str]:
    """Return what is known of a device; values of secret settings are what they are."""
    if device is None or device.type == "unknown":
        return {}
    found: dict[Fact, str | None] = {
        ("device", ""): device.type, ("name", ""): device.name, ("model", ""): device.model,
        ("image", ""): device.image if device.is_node else None, ("owner", ""): _owner(device),
    }
    settings = _settings(device)
    return {fact: value for fact, value in (found | settings).items() if value is not None}


def _owner(device: Device) -> str | None:
    return device.owner if device.is_node and not device.is_free else None


def _settings(device: Device) -> dict[Fact, str | None]:
    return {("setting", name): json.dumps(value) for name, value in device.conf.items()}


def _facts_of_both(
    before: Device | None, after: Device | None
) -> tuple[Mapping[Fact, str | None], Mapping[Fact, str | None]]:
    """Return the facts of two states, without most of those that are the same.

    Thousands of devices may change at once, each a little.
    """
    if (
        before is None or after is None or before.type != after.type or before.type == "unknown"
    ):
        return facts(before), facts(after)
    old: dict[Fact, str | None] = {("name", ""): before.name, ("model", ""): before.model}
    new: dict[Fact, str | None] = {("name", ""): after.name, ("model", ""): after.model}
    if before.is_node and before.image != after.image:
        old |= {("image", ""): before.image, ("owner", ""): _owner(before)}
        new |= {("image", ""): after.image, ("owner", ""): _owner(after)}
    if before.conf is not after.conf:
        old |= _settings(before)
        new |= _settings(after)
    return old, new


def of_device(
    mac: str, before: Device | None, after: Device | None, who: str | None,
    key: str | None = None,
) -> Iterator[Change]:
    """Yield what differs between two states of a device; None: it is not there.

    With `key`, which nothing else may have, the keys of the changes begin with it: made again,
    they are the same.
    """
    old, new = _facts_of_both(before, after)
    for number, fact in enumerate(sorted(old.keys() | new.keys())):
        if old.get(fact) != new.get(fact):
            kind, item = fact
            yield Change(
                kind, mac, told(item), _shown(item, old.get(fact)), _shown(item, new.get(fact)),
                who, f"{key}{number}" if key is not None else uuid4().hex,
            )


def _shown(item: str, value: str | None) -> str | None:
    if value is None:
        return None
    return HIDDEN if item in MASKED else told(value)


def told(value: str) -> str:
    """Return a text as it is recorded: what is too long, or no text of a database, is cut.

    Two texts that differ still do: a cut one ends with a digest of the whole.
    """
    text = value.replace("\0", "?").encode("utf-8", "replace").decode()
    if text == value and len(value) <= LONGEST and CUT not in value:
        return value
    end = CUT + sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return text[:LONGEST - len(end)] + end


def of_links(
    before: Collection[Cable], after: Collection[Cable], who: str | None
) -> Iterator[Change]:
    """Yield the cables that are no longer seen, or are seen anew, or lead to other ports."""
    gone, fresh = _by_pair(set(before) - set(after)), _by_pair(set(after) - set(before))
    for pair in sorted(gone.keys() | fresh.keys()):
        old, new = gone.get(pair, []), fresh.get(pair, [])
        for at in range(max(len(old), len(new))):
            yield Change(
                "link", pair[0], pair[1], old[at] if at < len(old) else None,
                new[at] if at < len(new) else None, who,
            )


def _by_pair(cables: Collection[Cable]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for first, port, second, far in cables:
        text = f"{'?' if port is None else port} - {'?' if far is None else far}"
        found.setdefault((first, second), []).append(text)
    return {pair: sorted(texts) for pair, texts in found.items()}


def moment(value: float) -> float:
    """Return epoch seconds that a client states. Raises Invalid."""
    if not 0 <= value < YEAR_9999:  # false for what is no number
        raise Invalid("a moment is from 1970 to 9999")
    return value


def row(recorded: Recorded, name: str | None) -> dict[str, Any]:
    """Return what programs get; `name` is that of the device now."""
    change = recorded.change
    return {
        "id": recorded.number, "time": recorded.moment, "who": change.who, "kind": change.kind,
        "mac": change.mac, "name": name, "item": change.item,
        "before": change.before, "after": change.after,
    }
