"""What differs between two runs: `!` unexpected, `~` allowed, `?` not comparable, `=` the same.

Each difference has a category: definition, software, role, image, settings, topology, point,
command, boot, clock, log or result. What one thing explains is told once: a command that was
changed is no difference of each point that ran it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations, zip_longest
from statistics import median

from walt.client.answers import NULL, NUMBER, looks_wrong
from walt.client.errors import Failure
from walt.client.experiment.archive import BOOTS, CLOCKS, TEXT, TOPOLOGY, Archive
from walt.client.experiment.clocks import Clock, samples_of
from walt.client.experiment.document import Errors
from walt.client.experiment.images import kept
from walt.client.experiment.log_counts import counts_of
from walt.client.experiment.pairing import blocks
from walt.client.experiment.reading import parsed
from walt.client.experiment.showing import measured, where
from walt.client.experiment.topology import LONGEST_WAY, WAY, switches_between

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from walt.client.experiment.model import Experiment, Step

_BOOT = {"node": str, "outcome": (str, NULL), "seconds": (*NUMBER, NULL)}
SLOWER = 1.5  # a boot that takes so many times as long is told
CLOCKS_AGREE = 0.05  # seconds between two offsets, beside their errors, that are not told
CLOCKS_WRONG = 2.0  # the same, for more than boards without PTP or NTP differ after their boots
MANY = 100  # nodes between which all distances are compared
TOLD = 60  # characters of a command
DEFINED = (
    "name", "licence", "program", "variables", "repetitions", "results", "streams", "limits",
)


@dataclass(frozen=True)
class Difference:
    """A line of a comparison; `count` things of a category are the same where its mark is `=`."""

    mark: str  # one of ! ~ ? =
    category: str
    text: str
    count: int = 1


def experiment_of(archive: Archive) -> Experiment:
    """Return the experiment of an archive. Raises Failure."""
    errors = Errors()
    found = parsed(archive.data(TEXT).decode(errors="replace"), errors)
    if errors or found is None:
        raise Failure(f"{TEXT} of {archive.path}:\n{errors.told(TEXT)}")
    return found


def compare(first: Archive, second: Archive) -> list[Difference]:
    """Return what differs, the second archive beside the first; what is the same, counted.

    Raises Failure.
    """
    one, two = experiment_of(first), experiment_of(second)
    found = [
        *_definition(one, two), *_links(one, two), *_scripts(first, second), *_steps(one, two),
        *_software(first, second), *_roles(first, second), *_kept(first, second),
        *_topology(first, second),
        *_points(first, second, commands=_commands(one) == _commands(two)),
        *_results(one, first, second), *_boots(first, second), *_clocks(first, second),
        *_logs(first, second),
    ]
    same: Counter[str] = Counter()
    for line in found:
        if line.mark == "=":
            same[line.category] += line.count
    return [
        *sorted((line for line in found if line.mark != "="),
                key=lambda line: "!?~".index(line.mark)),
        *(Difference("=", category, f"{count} the same", count)
          for category, count in same.items()),
    ]


def _same(category: str) -> Difference:
    return Difference("=", category, "")


# -- what should be done -----------------------------------------------------------


def _definition(one: Experiment, two: Experiment) -> Iterator[Difference]:
    for field in DEFINED:
        if getattr(one, field) != getattr(two, field):
            yield Difference("!", "definition", f"{field} differs")
        else:
            yield _same("definition")
    before, after = ({role.name: role for role in found.roles} for found in (one, two))
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in before or name not in after:
            yield Difference("!", "definition", f"the role {name} is in one archive alone")
            continue
        for key in ("model", "count"):
            known, now = getattr(before[name], key), getattr(after[name], key)
            if known != now:
                yield Difference("!", "definition", f"{name}: {key} {known!r} -> {now!r}")
            else:
                yield _same("definition")


def _links(one: Experiment, two: Experiment) -> Iterator[Difference]:
    before, after = (
        {(link.between, link.neighbours): link for link in found.links} for found in (one, two)
    )
    for key in [*before, *(key for key in after if key not in before)]:
        known, now = before.get(key), after.get(key)
        if known is None or now is None:
            yield Difference("!", "topology", f"the link {known or now} is in one archive alone")
            continue
        for name in ("latency", "bandwidth"):
            values = getattr(known, name), getattr(now, name)
            if values[0] != values[1]:
                yield Difference(
                    "!", "topology",
                    f"{known}: {name} {values[0] or 'not told'} -> {values[1] or 'not told'}",
                )
            else:
                yield _same("topology")


def _scripts(first: Archive, second: Archive) -> Iterator[Difference]:
    scripts = {name for archive in (first, second) for name in archive.files("scripts")}
    for name in sorted(scripts):
        there = [name in archive.names for archive in (first, second)]
        if not all(there) or first.data(name) != second.data(name):
            yield Difference("!", "definition", f"{name} differs")
        else:
            yield _same("definition")


def _works(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return [(step.role, step.script or step.command) for step in steps]


def _commands(experiment: Experiment) -> list[tuple[str, str]]:
    return _works((*experiment.setup, *experiment.measure, *experiment.teardown))


def _shown(step: Step) -> str:
    return repr((step.script or step.command)[:TOLD])


def _steps(one: Experiment, two: Experiment) -> Iterator[Difference]:
    """Tell which steps were changed, added or left out."""
    for part in ("setup", "measure", "teardown"):
        before, after = getattr(one, part), getattr(two, part)
        for equal, low, high, start, end in blocks(_works(before), _works(after)):
            if equal:
                for known, now in zip(before[low:high], after[start:end]):
                    yield _same("command") if known == now else Difference(
                        "!", "definition", f"{part}: how {_shown(now)} of {now.role} is done"
                    )
                continue
            for known, now in zip_longest(before[low:high], after[start:end]):
                there = known or now
                what = f"{_shown(known)} -> {_shown(now)}" if known and now else \
                    f"{_shown(there)} is in one archive alone"
                number = (low if known else start) + 1
                yield Difference("!", "command", f"{part}, step {number} of {there.role}: {what}")


def _software(first: Archive, second: Archive) -> Iterator[Difference]:
    for key in ("client", "server"):
        before, after = first.manifest["walt"].get(key), second.manifest["walt"].get(key)
        if before != after:
            yield Difference("~", "software", f"WalT {key} {before} -> {after}")
        else:
            yield _same("software")


# -- who did it --------------------------------------------------------------------


def _pairs(first: Archive, second: Archive) -> Iterator[tuple[str, str, str]]:
    """Yield who played the same part: what it is called, a node of each archive, "" for none."""
    one, two = first.manifest["roles"], second.manifest["roles"]
    for role in [*one, *(name for name in two if name not in one)]:
        before, after = one.get(role, []), two.get(role, [])
        many = max(len(before), len(after)) > 1
        for number, (known, now) in enumerate(zip_longest(before, after, fillvalue=""), 1):
            yield f"{role} {number}" if many else role, known, now


def _roles(first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = first.manifest, second.manifest
    told = set[tuple[str, str]]()
    for part, before, after in _pairs(first, second):
        known, now = one["nodes"].get(before), two["nodes"].get(after)
        if known is None or now is None:
            yield Difference(
                "?", "role", f"{part}: nothing is known of {before if known is None else after}"
            )
            continue
        if known["mac"] != now["mac"]:
            yield Difference("~", "role", f"{part}: another node, {before} -> {after}")
        for key in ("model", "kernel", "cpu", "processors"):
            if known[key] != now[key]:
                mark = "~" if key in ("cpu", "processors") else "!"
                yield Difference(mark, "role", f"{part}: {key} {known[key]!r} -> {now[key]!r}")
            else:
                yield _same("role")
        pair = known["image"], now["image"]
        if pair not in told:
            told.add(pair)
            yield _image(part, first, second, *pair)
        for key in sorted({*known["settings"], *now["settings"]}):
            values = known["settings"].get(key), now["settings"].get(key)
            if values[0] != values[1]:
                yield Difference("!", "settings", f"{part}: {key} {values[0]!r} -> {values[1]!r}")
            else:
                yield _same("settings")


def _image(part: str, first: Archive, second: Archive, known: str, now: str) -> Difference:
    ids = first.manifest["images"].get(known), second.manifest["images"].get(now)
    if None in ids:
        return Difference("?", "image", f"{part}: the id of an image is not known")
    if ids[0] == ids[1]:
        return _same("image")
    layers = [
        archive.manifest.get("layers", {}).get(name) for archive, name in
        ((first, known), (second, now))
    ]
    text = f"{part}: {known} {str(ids[0])[:12]} -> {now} {str(ids[1])[:12]}"
    if layers[0] and layers[1]:
        if layers[0] == layers[1]:
            return Difference("!", "image", f"{text}: its configuration alone differs")
        numbers = [
            str(number) for number, (one, two) in enumerate(zip_longest(*layers), 1) if one != two
        ]
        some = "layer" if len(numbers) == 1 else "layers"
        text += f": {some} {', '.join(numbers)} of {max(map(len, layers))} differ" \
            + ("s" if len(numbers) == 1 else "")
    return Difference("!", "image", text)


def _kept(first: Archive, second: Archive) -> Iterator[Difference]:
    """Compare which images the archives keep; what differs in these is told by their ids."""
    try:
        before, after = (kept(archive, whole=False) for archive in (first, second))
    except Failure:
        yield Difference("?", "image", "images that an archive keeps cannot be read")
        return
    if before and after:
        yield from (_same("image") for _ in before & after)
    elif before or after:
        alone = first if before else second
        yield Difference("~", "image", f"{alone.path.name} alone keeps its images")


def _ways(archive: Archive) -> dict[str, Any] | None:
    if TOPOLOGY not in archive.names:
        return None
    found = archive.json(TOPOLOGY)
    wrong = looks_wrong(found, {"ways": {}}, TOPOLOGY) or next(filter(None, (
        looks_wrong(way, [WAY], TOPOLOGY) for way in found["ways"].values()
    )), "")
    if not wrong and any(len(way) > LONGEST_WAY for way in found["ways"].values()):
        wrong = f"a node has more than {LONGEST_WAY} devices above it"
    if wrong:
        raise Failure(f"{archive.path} makes no sense: {wrong}")
    ways: dict[str, Any] = found["ways"]
    return ways


def _topology(first: Archive, second: Archive) -> Iterator[Difference]:
    """Compare where the same nodes are connected, and how far the parts are from each other."""
    one, two = _ways(first), _ways(second)
    if one is None or two is None:
        if one is not two:
            yield Difference("?", "topology", "it is in one archive alone")
        return
    pairs = [(part, a, b) for part, a, b in _pairs(first, second) if a in one and b in two]
    nodes = first.manifest["nodes"], second.manifest["nodes"]
    moved = set[str]()
    for part, before, after in pairs:
        known, now = nodes[0].get(before, {}), nodes[1].get(after, {})
        if known.get("mac") != now.get("mac"):
            continue  # of other nodes, distances alone matter
        places = [_place(ways[name]) for ways, name in ((one, before), (two, after))]
        if places[0] != places[1]:
            moved.add(part)
            yield Difference("!", "topology", f"{part}: {places[0]} -> {places[1]}")
        else:
            yield _same("topology")
    for (part, a, b), (other, c, d) in combinations(pairs[:MANY], 2):
        if part in moved or other in moved:
            continue
        distances = switches_between(one, a, c), switches_between(two, b, d)
        if distances[0] == distances[1]:
            yield _same("topology")
        elif None in distances:
            yield Difference("?", "topology", f"{part} to {other}: not known in one archive")
        else:
            yield Difference(
                "!", "topology",
                f"{part} to {other}: {distances[0]} -> {distances[1]} switches between them",
            )


def _place(way: list[dict[str, Any]]) -> str:
    return f"port {way[0]['port']} of {way[0]['name']}" if way else "at no switch that is known"


# -- what became of it -------------------------------------------------------------


def _keyed(archive: Archive) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return points by their values and their repetition."""
    seen: Counter[Any] = Counter()
    found = {}
    for _, point in sorted(archive.points().items()):
        values = tuple(sorted((name, str(value)) for name, value in point["values"].items()))
        key = values, point["repetition"]
        found[(*key, seen[key])] = point
        seen[key] += 1
    return found


def _points(first: Archive, second: Archive, *, commands: bool) -> Iterator[Difference]:
    """Compare points; `commands` of them, too, where the definitions have the same ones."""
    one, two = _keyed(first), _keyed(second)
    for key in [*one, *(key for key in two if key not in one)]:
        before, after = one.get(key), two.get(key)
        point = before or after
        assert point is not None
        name = f"{point['number']} ({where(point)} #{point['repetition']})"
        if before is None or after is None:
            yield Difference("!", "point", f"{name} is in one archive alone")
            continue
        if before["outcome"] != after["outcome"]:
            yield Difference(
                "!", "point", f"{name}: {before['outcome']} -> {after['outcome']}"
                + (f" ({after['reason']})" if after["reason"] else "")
            )
        else:
            yield _same("point")
        for known, now in zip(before["commands"], after["commands"]) if commands else ():
            step = f"point {name}, step {known['step'] + 1} of {known['role']}"
            if known["command"] != now["command"]:
                yield Difference(
                    "!", "command", f"{step}: {known['command'][:TOLD]!r} differs"
                )
            elif known["status"] != now["status"] and not known["background"]:
                yield Difference(
                    "!", "command", f"{step}: status {known['status']} -> {now['status']}"
                )
            else:
                yield _same("command")


def _results(experiment: Experiment, first: Archive, second: Archive) -> Iterator[Difference]:
    """Compare medians. Where one archive has no point that is done, that was told already."""
    one, two = measured(first.points()), measured(second.points())
    done = [
        {where(point) for point in archive.points().values() if point["outcome"] == "done"}
        for archive in (first, second)
    ]
    for measure in experiment.results:
        before, after = one.get(measure.name, {}), two.get(measure.name, {})
        for place in sorted({*before, *after}):
            if place not in before or place not in after:
                if place in done[0] and place in done[1]:
                    yield Difference(
                        "?", "result", f"{measure.name} {place}: in one archive alone"
                    )
                continue
            values = median(before[place]), median(after[place])
            if values[0] == values[1]:
                yield _same("result")
                continue
            share = abs(values[0] - values[1]) / max(map(abs, values))
            yield Difference(
                "~" if share <= measure.tolerance else "!", "result",
                f"{measure.name} {place}: {values[0]:g} (n={len(before[place])}) ->"
                f" {values[1]:g} (n={len(after[place])}), {share:.1%}",
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
        else:
            yield _same("boot")


def _clocks_of(archive: Archive) -> dict[str, Clock]:
    """Return the clocks of nodes whose offsets are known. Raises Failure."""
    if CLOCKS not in archive.names:
        return {}
    found = archive.json(CLOCKS)
    wrong = looks_wrong(found, {"nodes": {}}, CLOCKS) or next(filter(None, (
        looks_wrong(rows, [[NUMBER]], CLOCKS) for rows in found["nodes"].values()
    )), "")
    if not wrong and any(len(row) != 3 for rows in found["nodes"].values() for row in rows):
        wrong = "samples of clocks are moment, offset, error"
    if wrong:
        raise Failure(f"{archive.path} makes no sense: {wrong}")
    return {name: Clock(samples_of(rows)) for name, rows in found["nodes"].items() if rows}


def _clocks(first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = _clocks_of(first), _clocks_of(second)
    for part, known, now in _pairs(first, second):
        before, after = one.get(known), two.get(now)
        if before is None or after is None:
            if before is not after:
                yield Difference("?", "clock", f"{part}: its offset is in one archive alone")
            continue
        steps = [sum(step.seconds for step in clock.steps()) for clock in (before, after)]
        worst = [clock.worst() for clock in (before, after)]
        apart = abs(worst[0].offset - worst[1].offset)
        if bool(before.steps()) != bool(after.steps()):
            yield Difference("!", "clock", f"{part}: set by {steps[0]:g} s -> {steps[1]:g} s")
        elif apart > CLOCKS_AGREE + worst[0].error + worst[1].error:
            mark = "!" if apart > CLOCKS_WRONG + worst[0].error + worst[1].error else "~"
            yield Difference(mark, "clock", f"{part}: {_offset(worst[0])} -> {_offset(worst[1])}")
        else:
            yield _same("clock")


def _offset(sample: Any) -> str:
    return f"{sample.offset:+.3f} s (± {sample.error:.3f})"


def _logs(first: Archive, second: Archive) -> Iterator[Difference]:
    one, two = counts_of(first), counts_of(second)
    if one is None or two is None:
        if one is not two or any(name.startswith("logs.") for name in first.names):
            yield Difference("?", "log", "log lines are in one archive alone, or cannot be read")
        return
    for stream in sorted({*one, *two}):
        if not one.get(stream) or not two.get(stream):
            yield Difference("!", "log", f"stream {stream} is in one archive alone")
        else:
            yield _same("log")


def as_json(differences: list[Difference]) -> list[dict[str, Any]]:
    """Return differences as objects."""
    return [
        {"mark": found.mark, "category": found.category, "text": found.text}
        for found in differences
    ]
