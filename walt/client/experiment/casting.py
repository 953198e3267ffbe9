"""Which node takes which role, and why; what lacks, and who would be disturbed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from statistics import median

from walt.client.errors import Refused
from walt.client.scripting.boots import boots_of
from walt.client.scripting.images import own_images
from walt.client.scripting.link import LINK
from walt.client.scripting.nodes import find
from walt.client.settings import username

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.experiment.model import Experiment, Role
    from walt.client.scripting.nodes import Node

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


@dataclass
class Cast:
    """The nodes of each role, with a reason for each; what lacks; who would be disturbed."""

    nodes: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # by node
    missing: list[str] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)
    boot_seconds: float | None = None  # of the slowest node, by its earlier boots

    @property
    def names(self) -> list[str]:
        """The nodes of all roles."""
        return [name for names in self.nodes.values() for name in names]


def choose(
    experiment: Experiment, candidates: list[Candidate], user: str, given: dict[str, list[str]]
) -> Cast:
    """Return who takes which role: first what disturbs nobody, then by name.

    `given` names nodes for roles. The roles with the fewest candidates choose first.
    """
    cast, left = Cast(), {one.name: one for one in candidates}
    fitting = {
        role.name: [one for one in candidates if fnmatchcase(one.model, role.model)]
        for role in experiment.roles
    }
    by_scarcity = sorted(
        experiment.roles, key=lambda role: (role.name not in given, len(fitting[role.name]))
    )
    chosen = dict[str, list[str]]()
    for role in by_scarcity:
        wanted = given.get(role.name)
        pool = [one for one in fitting[role.name] if one.name in left]
        if wanted is not None:
            pool = [one for one in pool if one.name in wanted]
        pool.sort(key=lambda one: (_nuisance(one, user), one.name))
        taken = pool[:role.count]
        chosen[role.name] = [one.name for one in taken]
        for one in taken:
            del left[one.name]
            cast.reasons[one.name] = _reason(one, role, user)
            if _nuisance(one, user) > 1:
                cast.disturbed.append(f"{one.name}: {cast.reasons[one.name]}")
        if len(taken) < role.count:
            cast.missing.append(
                f"{role.name}: {role.count - len(taken)} more"
                f" {'node' if role.model == '*' else role.model} of {role.count}"
            )
    cast.nodes = {role.name: chosen[role.name] for role in experiment.roles}
    return cast


def _nuisance(one: Candidate, user: str) -> int:
    """Tell how much it would disturb somebody, from 0 (mine) to 4."""
    if one.reserved:
        return 4
    if one.owner not in (None, user):
        return 3
    if one.in_use:
        return 2
    return 0 if one.owner == user else 1


def _reason(one: Candidate, role: Role, user: str) -> str:
    words = [one.model]
    words.append("yours" if one.owner == user else f"{one.owner}'s" if one.owner else "free")
    if one.reserved:
        words.append("reserved")
    if one.in_use:
        words.append("in use")
    return ", ".join(words)


def cast(experiment: Experiment, given: dict[str, list[str]]) -> Cast:
    """Ask the platform for its nodes, and choose. Raises Failure."""
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
        for role in experiment.roles if role.image not in ("default", *own)
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
    found = []
    for node in nodes:
        row = known.get(node.name, {})
        found.append(Candidate(
            node.name, node.model or "", row.get("owner"), node._record["image"] or "",
            bool(row.get("reserved_by")), bool(row.get("sessions")),
        ))
    return found


def _boot_seconds(names: list[str]) -> float | None:
    earlier: dict[str, list[float]] = {}
    for boot in boots_of(",".join(names), BOOTS):
        if boot.seconds is not None:
            earlier.setdefault(boot.node, []).append(boot.seconds)
    return max((median(seconds) for seconds in earlier.values()), default=None)
