"""A plugin of pytest: tests say which nodes they need, and get them (`walt help show pytest`).

Nothing of WalT is loaded before a test asks for one of the fixtures.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from walt.common.controls import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from walt.client.scripting.logs import Log
    from walt.client.scripting.nodes import Node, NodeSet
    from walt.client.scripting.root import Api

MARKER = (
    "walt(**roles): nodes for a test, by role: a pattern of models (one node), a number (so many"
    " nodes of any model), or both in a tuple"
)
CONSOLE_LINES = 20  # of a node that does not boot
LOOKED_AT = "-30m:"  # where they are looked for


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of the command line."""
    group = parser.getgroup("walt", "nodes of a WalT platform")
    group.addoption(
        "--walt-wait", type=float, default=0.0, metavar="SECONDS",
        help="how long a test waits for nodes that others have (default: it is skipped)",
    )
    group.addoption(
        "--walt-boot-timeout", type=float, default=600.0, metavar="SECONDS",
        help="how long nodes may take to boot (default: 600)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(scope="session")
def walt() -> Api:
    """The Python API of WalT."""
    from walt.client import api

    return api


@pytest.fixture
def walt_nodes(request: pytest.FixtureRequest, walt: Api) -> Iterator[SimpleNamespace]:
    """Booted nodes for the roles of the marker: a node for a pattern, else a set of nodes.

    They are reserved for this test alone: two tests, or two workers of pytest-xdist, never
    have the same one. The test is skipped when there are not enough of them.
    """
    yield from _roles(request, walt, fresh=False)


@pytest.fixture
def walt_fresh_nodes(request: pytest.FixtureRequest, walt: Api) -> Iterator[SimpleNamespace]:
    """As `walt_nodes`, rebooted first: nothing is left of what ran there before."""
    yield from _roles(request, walt, fresh=True)


@pytest.fixture
def walt_logs(walt: Any, walt_nodes: SimpleNamespace) -> LogWindow:
    """The log lines of the nodes of this test, since it began."""
    return LogWindow(walt, walt_nodes)


def _wanted(need: object) -> tuple[str, int]:
    """Return the pattern of models and the number of nodes that a role asks for."""
    if isinstance(need, str):
        return need, 1
    if isinstance(need, int) and not isinstance(need, bool):
        return "*", need
    if isinstance(need, tuple) and len(need) == 2:
        return str(need[0]), int(need[1])
    raise pytest.UsageError(f"{need!r} is neither a pattern of models, nor a number, nor both")


def _roles(
    request: pytest.FixtureRequest, walt: Api, *, fresh: bool
) -> Iterator[SimpleNamespace]:
    marker = request.node.get_closest_marker("walt")
    if marker is None or not marker.kwargs:
        raise pytest.UsageError(
            "this test asks for nodes and does not say which: @pytest.mark.walt(node=\"pc-*\")"
        )
    held = []
    found = SimpleNamespace()
    try:
        for role, need in marker.kwargs.items():
            held.append(_reserved(request, walt, role, need))
            nodes = held[-1].nodes
            setattr(found, role, nodes if not isinstance(need, str) else nodes.values()[0])
        for reservation in held:
            _boot(request, reservation.nodes, fresh=fresh)
        for role in marker.kwargs:
            _record(request, role, _nodes_of(getattr(found, role)))
        yield found
    finally:
        for reservation in held:
            reservation.__exit__()


def _reserved(request: pytest.FixtureRequest, walt: Api, role: str, need: object) -> Any:
    from walt.client.errors import Refused
    from walt.client.exceptions import TimeoutException

    model, count = _wanted(need)
    wait = request.config.getoption("--walt-wait")
    try:
        return walt.nodes.reserve(model, count, wait=wait)
    except Refused as refused:
        if refused.code not in ("NOT_FOUND", "CONFLICT"):
            raise
        pytest.skip(f"{role}: {refused}")
    except TimeoutException as late:
        pytest.skip(f"{role}: {late}")


def _nodes_of(found: Any) -> list[Node]:
    from walt.client.scripting.nodes import NodeSet

    return found.values() if isinstance(found, NodeSet) else [found]


def _boot(request: pytest.FixtureRequest, nodes: NodeSet, *, fresh: bool) -> None:
    from walt.client.exceptions import TimeoutException

    if fresh:
        nodes.reboot()
    try:
        nodes.wait(timeout=request.config.getoption("--walt-boot-timeout"))
    except TimeoutException:
        late = [node for node in nodes if not node.booted]
        pytest.fail("\n\n".join(map(story, late)) or "nodes did not boot in time", pytrace=False)


def story(node: Node) -> str:
    """Return how far a node came that did not boot, and the end of what its console showed."""
    lines = [f"{node.name} is not booted."]
    boots = node.boots(last=1)
    if boots:
        (boot,) = boots
        reached = {
            name: getattr(boot, name) - boot.asked for name in boot._fields
            if name in ("started", "address", "script", "kernel", "root", "system", "ready")
            and getattr(boot, name) is not None
        }
        lines.append(f"Asked for: {boot.cause or 'unknown'}; tries: {boot.tries}; it reached:")
        lines += [f"  {seconds:7.1f} s  {name}" for name, seconds in reached.items()]
    lines_then = node.get_logs(history=LOOKED_AT, consoles=True)
    shown = [log.line for log in lines_then if log.stream.endswith("console")]
    if shown:
        lines += ["The end of its console:", *(f"  {line}" for line in shown[-CONSOLE_LINES:])]
    else:
        lines.append("Its console showed nothing in the last half hour.")
    return visible("\n".join(lines))


def _record(request: pytest.FixtureRequest, role: str, nodes: list[Node]) -> None:
    """Put what was used into the report of the test (JUnit's properties)."""
    for node in nodes:
        boots = node.boots(last=1)
        booted = f"{boots[-1].image} {boots[-1].digest or ''}".strip() if boots else "unknown"
        request.node.user_properties.append((f"walt.{role}", f"{node.name} {booted}"))


class LogWindow:
    """Log lines of some nodes since this object was made."""

    def __init__(self, walt: Api, roles: SimpleNamespace) -> None:
        self._walt = walt
        self._nodes = [node for found in vars(roles).values() for node in _nodes_of(found)]
        self._began = time.monotonic()

    def lines(self) -> list[Log]:
        """Return those that arrived so far, in their order."""
        age = int(time.monotonic() - self._began) + 1
        return list(self._walt.logs.get_logs(history=f"-{age}s:", issuers=self._nodes))
