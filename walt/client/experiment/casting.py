"""Which node takes which role, and why; what lacks, and who would be disturbed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice, product
from statistics import median

from walt.client.answers import NULL
from walt.client.errors import WRONG_WORDS, Failure, Refused
from walt.client.scripting.boots import boots_of
from walt.client.scripting.images import own_images
from walt.client.scripting.link import LINK
from walt.client.scripting.nodes import find
from walt.client.settings import username

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from walt.client.experiment.model import Experiment
    from walt.client.scripting.nodes import Node

MOST_TRIED = 1000  # combinations of switches
PLACE = {"name": str, "switch": (str, NULL)}  # what is read of the row of a device
BOOTS = 20  # earlier boots of a node that tell how long the next one takes


@dataclass(frozen=True)
class Candidate:
    """What is known of a node before it is chosen."""

    name: str
    model: str
    owner: str | None  # None: free
    image: str
    reserved: bool
    in_use: bool  # somebody has a session there
    virtual: bool = True
    switch: str | None = None  # where it is connected, if that is known


@dataclass
class Cast:
    """The nodes of each role, with a reason for each; what lacks; who would be disturbed."""

    nodes: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # by node
    missing: list[str] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)
    reserved: list[str] = field(default_factory=list)  # nodes that a program has taken
    boot_seconds: float | None = None  # of the slowest node, by its earlier boots

    @property
    def names(self) -> list[str]:
        """The nodes of all roles."""
        return [name for names in self.nodes.values() for name in names]


def choose(
    experiment: Experiment, candidates: list[Candidate], user: str, given: dict[str, list[str]]
) -> Cast:
    """Return who takes which role, roles that are to be neighbours at one switch.

    Of all switches, that is first where least is missing, then where least is disturbed. Raises
    Failure for names in `given` that make no sense.
    """
    groups = _neighbours(experiment)
    found = _chosen(experiment, candidates, user, given, {})
    if not groups:
        return found
    best: Cast | None = None
    switches = sorted({
        candidate.switch for candidate in candidates if candidate.switch is not None
    })
    for places in islice(product(switches, repeat=len(groups)), MOST_TRIED):
        allowed = {role: place for roles, place in zip(groups, places) for role in roles}
        cast = _chosen(experiment, candidates, user, given, allowed)
        if best is None or (len(cast.missing), len(cast.disturbed)) < (
            len(best.missing), len(best.disturbed)
        ):
            best = cast
    if best is not None and not best.missing:
        return best
    told = "; ".join(", ".join(sorted(roles)) for roles in groups)
    found.missing.append(f"{told}: no switch that is known has nodes for all of them")
    return found


def _neighbours(experiment: Experiment) -> list[set[str]]:
    """Return the groups of roles that are to be at one switch each."""
    groups: list[set[str]] = []
    for link in experiment.links:
        if link.neighbours:
            group = set(link.between).union(*(
                other for other in groups if other & set(link.between)
            ))
            groups = [other for other in groups if not other & group] + [group]
    return groups


def _chosen(
    experiment: Experiment, candidates: list[Candidate], user: str, given: dict[str, list[str]],
    allowed: dict[str, str],
) -> Cast:
    """Return who takes which role: first what disturbs nobody, then by name.

    `allowed` are switches, by role. Roles that have a network of their own take virtual nodes.

    `given` names nodes for roles. A role gets its nodes whenever that is possible for all: nodes
    that others could do without move to it (augmenting paths). Raises Failure for names in
    `given` that make no sense.
    """
    _check(experiment, candidates, given)
    by_name = {candidate.name: candidate for candidate in candidates}
    on_networks = {
        name for link in experiment.links if not link.neighbours for name in link.between
    }
    fixed = {name for names in given.values() for name in names}
    order = sorted(candidates, key=lambda candidate: (_nuisance(candidate, user), candidate.name))
    pools = {
        role.name: [
            candidate.name for candidate in order
            if (candidate.name in given[role.name] if role.name in given
                else fnmatchcase(candidate.model, role.model) and candidate.name not in fixed)
            and (candidate.virtual or role.name not in on_networks)
            and allowed.get(role.name, candidate.switch) == candidate.switch
        ] for role in experiment.roles
    }
    holder = dict[str, str]()  # by node, its role

    def seat(role: str) -> bool:
        # By roles, each of which is looked at once: nodes of one role can do the same for others.
        wanted: dict[str, tuple[str, str] | None] = {role: None}  # who wants which node of it
        queue = [role]
        for at in queue:
            free = next((name for name in pools[at] if name not in holder), None)
            if free is not None:
                holder[free] = at
                while back := wanted[at]:
                    at, node = back
                    holder[node] = at
                return True
            for name in pools[at]:
                if holder[name] not in wanted:
                    wanted[holder[name]] = at, name
                    queue.append(holder[name])
        return False

    cast = Cast()
    by_scarcity = sorted(experiment.roles, key=lambda role: len(pools[role.name]))
    for role in by_scarcity:
        found = next((n for n in range(role.count) if not seat(role.name)), role.count)
        if found < role.count:
            cast.missing.append(
                f"{role.name}: {role.count - found} more"
                f" {'node' if role.model == '*' else role.model} of {role.count}"
                + (", virtual" if role.name in on_networks else "")
            )
    for role in experiment.roles:
        cast.nodes[role.name] = [
            name for name in pools[role.name] if holder.get(name) == role.name
        ]
        for name in cast.nodes[role.name]:
            cast.reasons[name] = _reason(by_name[name], user)
            if by_name[name].reserved:
                cast.reserved.append(name)
            if _nuisance(by_name[name], user) > 1:
                cast.disturbed.append(f"{name}: {cast.reasons[name]}")
    return cast


def _check(
    experiment: Experiment, candidates: list[Candidate], given: dict[str, list[str]]
) -> None:
    roles = {role.name: role for role in experiment.roles}
    models = {candidate.name: candidate.model for candidate in candidates}
    seen = set[str]()
    for name, nodes in given.items():
        if name not in roles:
            raise Failure(f"there is no role {name}; roles are {', '.join(roles)}", WRONG_WORDS)
        if len(nodes) > roles[name].count:
            raise Failure(f"{name} has a count of {roles[name].count}", WRONG_WORDS)
        for node in nodes:
            if node not in models:
                raise Failure(f"there is no node {node}", WRONG_WORDS)
            if node in seen:
                raise Failure(f"{node} cannot take two roles", WRONG_WORDS)
            if not fnmatchcase(models[node], roles[name].model):
                raise Failure(
                    f"{node} is a {models[node]}, and {name} wants {roles[name].model}",
                    WRONG_WORDS,
                )
            seen.add(node)


def _nuisance(candidate: Candidate, user: str) -> int:
    """Tell how much it would disturb somebody, from 0 (mine) to 4."""
    if candidate.reserved:
        return 4
    if candidate.owner not in (None, user):
        return 3
    if candidate.in_use:
        return 2
    return 0 if candidate.owner == user else 1


def _reason(candidate: Candidate, user: str) -> str:
    words = [candidate.model]
    owner = candidate.owner
    words.append("yours" if owner == user else f"{owner}'s" if owner else "free")
    if candidate.reserved:
        words.append("reserved")
    if candidate.in_use:
        words.append("in use")
    return ", ".join(words)


def cast(
    experiment: Experiment, given: dict[str, list[str]], coming: Collection[str] = ()
) -> Cast:
    """Ask the platform for its nodes, and choose. Raises Failure.

    `coming` are the names of images that the caller is going to have.
    """
    try:
        nodes = find("all-nodes")
    except Refused as refused:
        if refused.code != "INVALID":
            raise
        nodes = []  # an empty set is refused: a new platform has no node
    found = choose(experiment, _candidates(nodes), username(), given)
    own = {image.name for image in own_images()}
    found.missing += [
        f"{role.name}: an image {role.image} of yours (`walt image show`)"
        for role in experiment.roles if role.image not in ("default", *own, *coming)
    ]
    if found.names:
        found.boot_seconds = _boot_seconds(found.names)
    return found


def _candidates(nodes: list[Node]) -> list[Candidate]:
    if not nodes:
        return []
    names = ",".join(node.name for node in nodes)
    answer = LINK.call("cs.nodes.plan", devices=names)
    plans: list[dict[str, Any]] = json.loads(answer[b"rows"])
    known = {row["name"]: row for row in plans}
    tables = LINK.json("cs.devices.show", "tables", {"known": [PLACE]})
    switches = {row["name"]: row["switch"] for row in tables["known"]}
    found = []
    for node in nodes:
        row = known.get(node.name, {})
        found.append(Candidate(
            node.name, node.model or "", row.get("owner"), node._record["image"] or "",
            bool(row.get("reserved_by")), bool(row.get("sessions")), node.virtual,
            switches.get(node.name),
        ))
    return found


def _boot_seconds(names: list[str]) -> float | None:
    earlier: dict[str, list[float]] = {}
    for boot in boots_of(",".join(names), BOOTS):
        if boot.seconds is not None:
            earlier.setdefault(boot.node, []).append(boot.seconds)
    return max((median(seconds) for seconds in earlier.values()), default=None)
