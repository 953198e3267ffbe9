"""Each dependency is imported, and has its reason in docs/dependencies.md."""

from __future__ import annotations

import ast
import configparser
import re
from fnmatch import fnmatch
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
# Modules whose name is not that of their package.
MODULES = {
    "psycopg2-binary": "psycopg2", "ruamel.yaml": "ruamel", "google-re2": "re2",
    "markdown-it-py": "markdown_it", "prometheus-client": "prometheus_client",
}
# Twisted imports it where TLS is used; programs are started.
NOT_IMPORTED = {
    "service-identity", "coverage", "ruff", "mypy", "mypy-zope", "towncrier", "snmpsim", "pysmi",
    "pytest-xdist", "ansible-core", "ipykernel", "nbclient", "roc-validator", "rocrate", "moto",
}


def wanted() -> set[str]:
    """Return the packages that setup.cfg names."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return {
        re.split(r"[\[<>=~ ]", line)[0] for extra in parser["options.extras_require"].values()
        for line in extra.split("\n") if line
    }


def imported() -> set[str]:
    """Return the top-level modules that the product, its tests and benches import."""
    found = set()
    for place in ("walt", "tests", "bench", "twisted"):
        for path in (ROOT / place).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.split(".")[0])
    return found


class DependenciesTests(SynchronousTestCase):
    def test_imported(self) -> None:
        """What is not imported is not installed."""
        modules = {MODULES.get(name, name.lower()) for name in wanted() - NOT_IMPORTED}
        self.assertEqual(modules - imported(), set())

    def test_reasons(self) -> None:
        """Each one is in the table of reasons."""
        text = (ROOT / "docs/dependencies.md").read_text()
        self.assertEqual({name for name in wanted() if name not in text}, set())


class PackageDataTests(SynchronousTestCase):
    def test_files(self) -> None:
        """What the packages hold beside Python is in the wheel, too."""
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(ROOT / "setup.cfg")
        # As setuptools reads it: lines where there are several, else words between commas.
        value = parser["options.package_data"]["*"]
        patterns = [one.strip() for one in (
            value.splitlines() if "\n" in value else value.split(",")
        )]
        left = [
            str(path) for path in (ROOT / "walt").rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc")
            and path.name not in ("py.typed", "made-from")
            and not any(fnmatch(path.name, pattern) for pattern in patterns)
        ]
        self.assertEqual(left, [])
