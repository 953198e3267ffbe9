"""The arrows of the layout: which package may import which, and whose libraries are whose."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

# What each package may import of walt, by longest prefix. A trailing "." means
# "modules of one's own package"; domain-to-domain arrows are listed apart.
ALLOWED: dict[str, tuple[str, ...]] = {
    "walt.common": ("walt", "walt.common"),
    "walt.rpc": ("walt", "walt.common", "walt.rpc"),
    "walt.client": ("walt", "walt.common", "walt.client", "walt.doc"),
    "walt.doc": ("walt",),
    "walt.node": ("walt.node",),
    "walt.virtual": ("walt", "walt.common", "walt.virtual"),
    "walt.vpn": ("walt.common", "walt.vpn"),
    "walt.server.config": ("walt", "walt.common", "walt.server.config"),
    "walt.server.runtime": ("walt.common", "walt.server.runtime", "walt.server.trackexec"),
    "walt.server.trackexec": ("walt.server.trackexec",),
    "walt.server.domain": ("walt.common", "walt.server.runtime"),
    "walt.server.adapters": ("walt.common", "walt.server.runtime", "walt.server.domain"),
    "walt.server.workers": (
        "walt.common", "walt.server.workers", "walt.rpc", "walt.server.adapters",
        "walt.server.domain.switches", "walt.server.trackexec",
    ),
    "walt.server.api": (
        "walt", "walt.common", "walt.rpc", "walt.server.domain", "walt.server.api",
        "walt.server.runtime.slicing",
    ),
    "walt.server.streams": (
        "walt", "walt.common", "walt.rpc", "walt.server.domain", "walt.server.streams",
        "walt.server.runtime.producing", "walt.server.runtime.slicing",
    ),
    "walt.server.http": (
        "walt", "walt.common", "walt.rpc", "walt.server.domain", "walt.server.http",
        "walt.server.runtime.producing",
    ),
    "walt.server.wire": (
        "walt", "walt.common", "walt.rpc", "walt.server.domain", "walt.server.wire",
        "walt.server.api", "walt.server.streams",
    ),
    "walt.server.assembly": ("walt",),
    "walt.server.tap": ("walt",),
    "walt.server.tools": ("walt",),
    "walt.server.tools.dhcp_event": ("walt", "walt.common"),
}

# Between domains calls go one way: to the other's model, sources of events and service.
DOMAIN_ARROWS: dict[str, tuple[str, ...]] = {
    "devices": ("network",),
    "network": (),
    "logs": (),
    "images": ("devices",),
    "nodes": ("devices", "images", "logs", "network"),
    "network_services": ("devices", "nodes", "images", "network"),
    "switches": ("devices", "logs", "nodes"),
    "virtual": ("devices", "nodes", "images", "logs"),
    "vpn": ("devices", "nodes", "images"),
}

# What commands, scripts and experiments do is below what the command line asks and prints.
SILENT = ("walt.client.operations", "walt.client.scripting", "walt.client.experiment")
LOUD = ("walt.client.commands", "walt.client.terminal", "walt.client.output", "walt.client.main")
SPOKEN = {"print", "input", "stdin", "stdout", "stderr"}  # names that operations do without

# Where a library of others may be imported: beside Twisted and zope, each has its adapter.
ADAPTERS: dict[str, tuple[str, ...]] = {
    "twisted": ("walt.rpc", "walt.server"),
    "zope": ("walt.rpc", "walt.server"),
    "cryptography": ("walt.client.enrolment", "walt.server.adapters.tls"),
    "dockerfile": ("walt.server.adapters.podman.recipes",),
    "jeepney": (
        "walt.server.adapters.nfs", "walt.server.adapters.systemd", "walt.server.runtime.dbus",
    ),
    "markdown_it": ("walt.server.http.markdown",),
    "nbdkit": ("walt.server.adapters.nbdkit.areas",),
    "OpenSSL": ("walt.rpc.client", "walt.server.adapters.tls"),
    "prometheus_client": ("walt.server.runtime.metrics",),
    "psycopg2": ("walt.server.adapters.postgres",),
    "pyarrow": ("walt.client.operations.log_export", "walt.server.adapters.archive"),
    "pyasn1": ("walt.server.workers.snmp",),
    "pysnmp": ("walt.server.workers.snmp",),
    "pytest": ("walt.client.pytest_plugin",),
    "re2": ("walt.server.domain.logs.ere",),
    "ruamel": (
        "walt.client.config_file", "walt.client.experiment.document",
        "walt.server.adapters.podman.prepare",
        "walt.server.config",
    ),
    "txpostgres": ("walt.server.adapters.postgres",),
    "wsproto": ("walt.server.http.websocket",),
}

# Where imports may stand inside functions, and why.
INSIDE: dict[str, str] = {
    "walt.client": "each command imports what it needs alone: a start takes 40 ms, Python's too",
    "walt.server.runtime.reactors": "twistd chooses the reactor after it has read the plugin",
    "walt.server.assembly.ground": "see assembly.reading: images",
    "walt.server.assembly.server": "see assembly.reading: what stands on the first floor",
    "walt.server.assembly.ui": "see assembly.reading: sockets of browsers",
    "walt.server.http.pages": "see assembly.reading: pages of `walt help`",
    "walt.server.http.ui": "see assembly.reading: sockets of browsers",
    "walt.server.tap": "what is not recorded from its first line on is read later",
    "walt.server.workers.main": "only workers that give up root, or are recorded, need it",
    "walt.server.adapters.podman.prepare": "workers that read no specification do without YAML",
}


def modules() -> dict[str, Path]:
    """Return every module of walt, by dotted name."""
    found = {}
    for path in sorted((ROOT / "walt").rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the walt modules that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                deep = f"{node.module}.{alias.name}"
                names.add(deep if deep in known else node.module)
        elif isinstance(node, ast.ImportFrom) and node.level:
            names.add("relative import")
    return {name for name in names if name.split(".")[0] == "walt" or " " in name}


def within(name: str, package: str) -> bool:
    """Tell whether a module is a package or lies inside it (walt itself: the root alone)."""
    return name == package or (package != "walt" and name.startswith(package + "."))


def allowed(importer: str, imported: str) -> bool:
    """Tell whether one import follows the arrows."""
    prefixes = [one for one in ALLOWED if within(importer, one)]
    if not prefixes:
        return importer == "walt"
    rule = max(prefixes, key=len)
    if rule in ("walt.server.assembly", "walt.server.tap", "walt.server.tools"):
        return not imported.startswith("tests")
    if importer.startswith("walt.server.domain."):
        mine = importer.split(".")[3]
        if imported.startswith("walt.server.domain."):
            theirs = imported.split(".")[3]
            shared = len(imported.split(".")) == 4 and theirs not in DOMAIN_ARROWS
            return theirs == mine or shared or theirs in DOMAIN_ARROWS.get(mine, ())
    if importer.startswith("walt.server.adapters."):
        mine = ".".join(importer.split(".")[:4])
        if within(imported, "walt.server.adapters"):
            return within(imported, mine)
    return any(within(imported, package) for package in ALLOWED[rule])


def for_types(node: ast.AST) -> bool:
    """Tell whether a node is `if TYPE_CHECKING:`, which no running program reads."""
    return (
        isinstance(node, ast.If) and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Return the dotted names that a file imports when it runs; whether inside a function."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if for_types(child):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                yield from ((f"{child.module}.{alias.name}", inside) for alias in child.names)
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from walk(child, inside or function)

    return walk(ast.parse(path.read_text()), False)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of nodes that reach each other, each sorted (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        path.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in path:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            circle = path[path.index(node):]
            del path[path.index(node):]
            if len(circle) > 1 or node in graph[node]:
                found.append(sorted(circle))

    for node in graph:
        if node not in order:
            visit(node)
    return found


class ArrowsTests(SynchronousTestCase):
    def test_every_import_follows_the_arrows(self) -> None:
        """No module of walt imports against the layout."""
        known = modules()
        wrong = [
            f"{name} -> {imported}"
            for name, path in known.items()
            for imported in sorted(imports(path, known))
            if not allowed(name, imported)
        ]
        self.assertEqual(wrong, [])

    def test_operations_are_silent(self) -> None:
        """What commands and scripts do is below the command line, and neither prints nor asks."""
        known = modules()
        wrong = [
            f"{name} -> {imported}"
            for name, path in known.items() if name.startswith(SILENT)
            for imported in sorted(imports(path, known)) if imported.startswith(LOUD)
        ]
        self.assertEqual(wrong, [])
        spoken = {
            f"{name}: {found}"
            for name, path in known.items() if name.startswith("walt.client.operations")
            for node in ast.walk(ast.parse(path.read_text()))
            for found in (getattr(node, "id", None), getattr(node, "attr", None))
            if found in SPOKEN
        }
        self.assertEqual(spoken, set())

    def test_loop_variables(self) -> None:
        """A loop says what it goes through: `one` is a word for one of a pair alone."""
        wrong = [
            f"{name}: line {node.target.lineno}"
            for name, path in modules().items()
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension)
            and isinstance(node.target, ast.Name) and node.target.id == "one"
        ]
        self.assertEqual(wrong, [])

    def test_no_circles(self) -> None:
        """No module imports itself by way of others, not even inside functions."""
        known = modules()
        graph = {
            name: {
                one if one in known else one.rpartition(".")[0] for one, _ in imported(path)
            } & known.keys()
            for name, path in known.items()
        }
        self.assertEqual(circles(graph), [])

    def test_circles_are_found(self) -> None:
        """Circles of two and three, and one who imports itself."""
        graph = {
            "a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"f", "a"},
            "g": {"a"},
        }
        self.assertEqual(sorted(circles(graph)), [["a", "b"], ["c", "d", "e"], ["f"]])

    def test_libraries_of_others(self) -> None:
        """Each is imported by its adapter alone, and has one."""
        wrong, used = [], set()
        for name, path in modules().items():
            for one, _ in imported(path):
                library = one.split(".")[0]
                if library == "walt" or library in sys.stdlib_module_names:
                    continue
                used.add(library)
                if not any(within(name, home) for home in ADAPTERS.get(library, ())):
                    wrong.append(f"{name} -> {library}")
        self.assertEqual(wrong, [])
        self.assertEqual(used, set(ADAPTERS))

    def test_imports_inside_functions(self) -> None:
        """They have a reason."""
        inside = {
            name for name, path in modules().items() if any(deep for _, deep in imported(path))
        }
        reasons = {name: [home for home in INSIDE if within(name, home)] for name in inside}
        self.assertEqual([name for name, homes in reasons.items() if not homes], [])
        used = {home for homes in reasons.values() for home in homes}
        self.assertEqual(used, set(INSIDE))
