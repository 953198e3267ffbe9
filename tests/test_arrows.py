"""The arrows of the layout: which package may import which."""

from __future__ import annotations

import ast
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
    "walt.server.config": ("walt", "walt.common", "walt.server.config"),
    "walt.server.runtime": ("walt.common", "walt.server.runtime"),
    "walt.server.trackexec": (),
    "walt.server.domain": ("walt.common", "walt.server.runtime"),
    "walt.server.adapters": ("walt.common", "walt.server.runtime", "walt.server.domain"),
    "walt.server.workers": (
        "walt.common", "walt.server.workers", "walt.rpc", "walt.server.adapters",
    ),
    "walt.server.api": ("walt", "walt.common", "walt.rpc", "walt.server.domain", "walt.server.api"),
    "walt.server.streams": (
        "walt", "walt.common", "walt.rpc", "walt.server.domain", "walt.server.streams",
    ),
    "walt.server.http": (
        "walt", "walt.common", "walt.rpc", "walt.server.domain", "walt.server.http",
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

# Between domains calls go one way: to the other's model, ports of events and service.
DOMAIN_ARROWS: dict[str, tuple[str, ...]] = {
    "devices": ("network",),
    "network": (),
    "logs": (),
    "images": ("devices",),
    "nodes": ("devices", "images", "logs", "network"),
    "services": ("devices", "nodes", "images", "network"),
    "switches": ("devices", "logs"),
    "virtual": ("devices", "nodes", "images", "logs"),
    "vpn": ("devices", "nodes", "images"),
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
