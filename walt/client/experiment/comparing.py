"""What differs between two runs: `!` unexpected, `~` allowed, `?` not comparable.

Each difference has a category: definition, software, role, image, settings, point, command, boot,
result or log.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from statistics import median

from walt.client.answers import NULL, NUMBER, looks_wrong
from walt.client.errors import Failure
from walt.client.experiment.archive import BOOTS, LOGS, TEXT, Archive
from walt.client.experiment.document import Errors
from walt.client.experiment.reading import parsed
from walt.client.experiment.showing import measured

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from walt.client.experiment.model import Experiment

PIECE = 1 << 20  # bytes of logs that are read at once
# A line of logs: its time, its issuer, its stream (which is found), its text.
_STRING = rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
_LINE = re.compile(rb"^\[-?[0-9][0-9.e+-]*, %s, (%s), %s\]$" % ((_STRING,) * 3), re.MULTILINE)
_BOOT = {"node": str, "outcome": (str, NULL), "seconds": (*NUMBER, NULL)}
SLOWER = 1.5  # a boot that takes so many times as long is told


@dataclass(frozen=True)
class Difference:
    """A line of a comparison."""

    mark: str  # one of ! ~ ?
    category: str
    text: str


def experiment_of(archive: Archive) -> Experiment:
    """Return the experiment of an archive. Raises Failure."""
    errors = Errors()
    found = parsed(archive.data(TEXT).decode(errors="replace"), errors)
    if errors or found is None:
        raise Failure(f"{TEXT} of {archive.path}:\n{errors.told(TEXT)}")
    return found


def compare(first: Archive, second: Archive) -> list[Difference]:
    """Return what differs, the second archive beside the first. Raises Failure."""
    experiment = experiment_of(first)
    differences = [
        *_definition(first, second), *_roles(first, second), *_points(first, second),
        *_results(experiment, first, second), *_boots(first, second), *_logs(first, second),
    ]
    return sorted(differences, key=lambda found: "!?~".index(found.mark))


def _definition(first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = experiment_of(first), experiment_of(second)
    for field in (
        "name", "licence", "roles", "variables", "repetitions", "setup", "measure", "teardown",
        "results", "streams", "limits",
    ):
        if getattr(one, field) != getattr(two, field):
            yield Difference("!", "definition", f"{field} differs")
    scripts = {name for archive in (first, second) for name in archive.files("scripts")}
    for name in sorted(scripts):
        there = [name in archive.names for archive in (first, second)]
        if not all(there) or first.data(name) != second.data(name):
            yield Difference("!", "definition", f"{name} differs")
    for key in ("client", "server"):
        before, after = first.manifest["walt"].get(key), second.manifest["walt"].get(key)
        if before != after:
            yield Difference("~", "software", f"WalT {key} {before} -> {after}")


def _roles(first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = first.manifest, second.manifest
    for role in sorted({*one["roles"], *two["roles"]}):
        pairs = zip(one["roles"].get(role, []), two["roles"].get(role, []))
        for before, after in pairs:
            known, now = one["nodes"].get(before), two["nodes"].get(after)
            if known is None or now is None:
                yield Difference("?", "role", f"{role}: nothing is known of {before}, {after}")
                continue
            if known["mac"] != now["mac"]:
                yield Difference("~", "role", f"{role}: another node, {before} -> {after}")
            for key in ("model", "kernel", "cpu", "processors"):
                if known[key] != now[key]:
                    mark = "~" if key in ("cpu", "processors") else "!"
                    yield Difference(
                        mark, "role", f"{role}: {key} {known[key]!r} -> {now[key]!r}"
                    )
            ids = [archive["images"].get(node["image"]) for archive, node in
                   ((one, known), (two, now))]
            if None in ids:
                yield Difference("?", "image", f"{role}: the id of an image is not known")
            elif ids[0] != ids[1]:
                yield Difference(
                    "!", "image", f"{role}: {known['image']} {ids[0]} -> {now['image']} {ids[1]}"
                )
            for key in sorted({*known["settings"], *now["settings"]}):
                values = known["settings"].get(key), now["settings"].get(key)
                if values[0] != values[1]:
                    yield Difference(
                        "!", "settings", f"{role}: {key} {values[0]!r} -> {values[1]!r}"
                    )


def _points(first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = first.points(), second.points()
    for number in sorted({*one, *two}):
        before, after = one.get(number), two.get(number)
        if before is None or after is None:
            yield Difference("!", "point", f"{number} is in one archive alone")
            continue
        if before["outcome"] != after["outcome"]:
            yield Difference(
                "!", "point", f"{number}: {before['outcome']} -> {after['outcome']}"
                + (f" ({after['reason']})" if after["reason"] else "")
            )
        for known, now in zip(before["commands"], after["commands"]):
            where = f"point {number}, step {known['step']} of {known['role']}"
            if known["command"] != now["command"]:
                yield Difference("!", "command", f"{where}: {known['command'][:60]!r} differs")
            elif known["status"] != now["status"] and not known["background"]:
                yield Difference(
                    "!", "command", f"{where}: status {known['status']} -> {now['status']}"
                )


def _results(experiment: Experiment, first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = measured(first.points()), measured(second.points())
    for measure in experiment.results:
        before, after = one.get(measure.name, {}), two.get(measure.name, {})
        for where in sorted({*before, *after}):
            if where not in before or where not in after:
                yield Difference("?", "result", f"{measure.name} {where}: in one archive alone")
                continue
            values = median(before[where]), median(after[where])
            if values[0] == values[1]:
                continue
            share = abs(values[0] - values[1]) / max(map(abs, values))
            yield Difference(
                "~" if share <= measure.tolerance else "!", "result",
                f"{measure.name} {where}: {values[0]:g} (n={len(before[where])}) ->"
                f" {values[1]:g} (n={len(after[where])}), {share:.1%}",
            )


def _boots(first: Archive, second: Archive) -> Iterator[Difference]:
    seconds = []
    for archive in (first, second):
        boots = archive.json(BOOTS) if BOOTS in archive.names else []
        wrong = looks_wrong(boots, [_BOOT], BOOTS)
        if wrong:
            raise Failure(f"{archive.path} makes no sense: {wrong}")
        seconds.append([boot["seconds"] for boot in boots if boot.get("seconds")])
        failed = [boot["node"] for boot in boots if boot.get("outcome") == "failed"]
        if failed:
            yield Difference(
                "!", "boot", f"{archive.path.name}: boots failed: {', '.join(sorted(set(failed)))}"
            )
    if all(seconds):
        before, after = map(median, seconds)
        if max(before, after) > SLOWER * min(before, after):
            yield Difference("~", "boot", f"{before:.1f} s -> {after:.1f} s")


def _streams(archive: Archive) -> Counter[str] | None:
    """Return the number of lines of each stream, None where there are no logs."""
    if LOGS not in archive.names:
        return None
    found: Counter[bytes] = Counter()
    inflate, rest = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), b""  # of gzip
    try:
        for piece in archive.pieces(LOGS):
            while piece:
                text = rest + inflate.decompress(piece, PIECE)
                piece, end = inflate.unconsumed_tail, text.rfind(b"\n") + 1
                text, rest = text[:end], text[end:]
                streams = _LINE.findall(text)
                found.update(streams)
                if len(streams) != text.count(b"\n") or max(len(found), len(rest)) > PIECE:
                    return None
        names = {stream: json.loads(stream) for stream in found}
    except (ValueError, zlib.error):
        return None
    if rest or not inflate.eof:
        return None
    counts: Counter[str] = Counter()
    for stream, count in found.items():
        counts[names[stream]] += count
    return counts


def _logs(first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = _streams(first), _streams(second)
    if one is None or two is None:
        if (LOGS in first.names) or (LOGS in second.names):
            yield Difference("?", "log", "log lines are in one archive alone, or cannot be read")
        return
    for stream in sorted({*one, *two}):
        if not one[stream] or not two[stream]:
            yield Difference("!", "log", f"stream {stream} is in one archive alone")


def as_json(differences: list[Difference]) -> list[dict[str, Any]]:
    """Return differences as objects."""
    return [
        {"mark": found.mark, "category": found.category, "text": found.text}
        for found in differences
    ]
