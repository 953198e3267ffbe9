"""Which Debian package brings a program, and whether this repository asks for that package.

What a test starts must come with a package of scripts/packages.mk, with what such a package
depends on, or with every Debian (its essential packages). This module has the rules and
the questions to dpkg; scripts/record.py notes which programs were started.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# One line a package; the last field is what it depends on, Pre-Depends first.
QUERY_FORMAT = (
    "${db:Status-Status}\t${Package}\t${Essential}\t${Provides}\t${Pre-Depends}, ${Depends}\n"
)
# Directories that are links to their namesake below /usr since Debian 12 ("merged /usr"),
# while packages may still name their files by the link.
MERGED = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/")


@dataclass(frozen=True)
class Package:
    """An installed package: each group of `depends` names alternatives."""

    name: str
    essential: bool = False
    provides: frozenset[str] = frozenset()
    depends: tuple[tuple[str, ...], ...] = ()


def _name(text: str) -> str:
    """Return the name in `name:arch (>= version)`."""
    return re.split(r"[\s:(]", text.strip(), maxsplit=1)[0]


def parse_installed(text: str) -> dict[str, Package]:
    """Return the installed packages that `dpkg-query -W -f QUERY_FORMAT` tells."""
    found = {}
    for line in text.splitlines():
        status, name, essential, provides, depends = line.split("\t")
        if status == "installed":
            groups = [
                tuple(_name(alternative) for alternative in group.split("|"))
                for group in depends.split(",") if group.strip()
            ]
            provided = frozenset(_name(word) for word in provides.split(",") if word.strip())
            found[name] = Package(name, essential == "yes", provided, tuple(groups))
    return found


def parse_lists(text: str) -> set[str]:
    """Return all packages named by variables *_PACKAGES in the text of packages.mk."""
    joined = text.replace("\\\n", " ")
    return {
        package for words in re.findall(r"^\w+_PACKAGES\s*[:+?]?=(.*)$", joined, re.MULTILINE)
        for package in words.split()
    }


def parse_variable(text: str, name: str) -> list[str]:
    """Return the words of one variable in the text of packages.mk."""
    joined = text.replace("\\\n", " ")
    return [
        word for words in re.findall(rf"^{name}\s*[:+?]?=(.*)$", joined, re.MULTILINE)
        for word in words.split()
    ]


def brought(installed: Mapping[str, Package], wanted: Iterable[str]) -> set[str]:
    """Return the packages that `wanted` and the essential ones bring, themselves included.

    Of alternatives, the first that is installed is meant, as apt would have it;
    recommendations bring nothing.
    """
    todo = [*wanted, *(package.name for package in installed.values() if package.essential)]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in found or name not in installed:
            continue
        found.add(name)
        for group in installed[name].depends:
            real = next((alternative for alternative in group if alternative in installed), None)
            todo += [real] if real is not None else [
                package.name for package in installed.values() if package.provides & set(group)
            ]
    return found


def parse_owners(text: str) -> dict[str, set[str]]:
    """Return the packages of each path, from the output of `dpkg-query --search`.

    A path that one package diverts (dpkg-divert(8)) is of that one; the file of the
    others is where the diversion leads.
    """
    owners: dict[str, set[str]] = {}
    diverting: dict[str, str] = {}
    moved: dict[str, str] = {}
    source = ""
    for line in text.splitlines():
        head, _, path = line.rpartition(": ")
        if not path.startswith("/"):
            continue
        diversion = re.fullmatch(r"(?:diversion by (\S+)|local diversion) (from|to)", head)
        if diversion is None:
            owners.setdefault(path, set()).update(_name(owner) for owner in head.split(", "))
        elif diversion[2] == "from":
            source = path
            if diversion[1]:
                diverting[path] = diversion[1]
        else:
            moved[path] = source
    for path, package in diverting.items():
        if package in owners.get(path, set()):
            owners[path] = {package}
    for path, original in moved.items():
        others = owners.get(original, set()) - {diverting.get(original, "")}
        if others:
            owners.setdefault(path, set()).update(others)
    return owners


def names_of(path: str) -> list[str]:
    """Return the paths by which packages may know the file at `path`.

    A program may have been started by either name: runc runs itself again from a mount
    whose root is /usr, and is then seen as /sbin/runc.
    """
    short = path.removeprefix("/usr")
    return [f"/usr{short}", short] if short.startswith(MERGED) else [path]


def counts(path: str, own: Collection[Path]) -> bool:
    """Tell whether a program is one of the system: not below a directory of `own`."""
    return not any(Path(path).is_relative_to(directory) for directory in own)


def unlisted(
    programs: Iterable[str], owners: Mapping[str, Collection[str]], allowed: Collection[str]
) -> list[str]:
    """Return a sentence for each program that no package of `allowed` brings."""
    told = []
    for program in sorted(set(programs)):
        packages = {package for name in names_of(program) for package in owners.get(name, ())}
        if not packages:
            told.append(f"{program} was started, which belongs to no Debian package")
        elif not packages & set(allowed):
            told.append(
                f"{program} was started, and nothing in scripts/packages.mk brings it; the package"
                f" is {' or '.join(sorted(packages))}"
            )
    return told


def check(programs: Iterable[str], lists: Path, own: Collection[Path]) -> list[str]:
    """Return what is wrong with the programs that were started on this machine."""
    # What a test had put among the programs of the system is gone by now.
    ours = [program for program in programs if counts(program, own) and Path(program).exists()]
    if not ours:
        return ["no program was recorded: the record cannot be right"]
    installed = parse_installed(_ask("--show", f"--showformat={QUERY_FORMAT}"))
    names = [_escaped(name) for program in ours for name in names_of(program)]
    owners = parse_owners(_ask("--search", "--", *names))
    return unlisted(ours, owners, brought(installed, parse_lists(lists.read_text())))


def _escaped(path: str) -> str:
    """Return a path as a pattern of dpkg-query that matches it alone."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def _ask(*words: str) -> str:
    """Return the output of dpkg-query, which also fails when it finds a part only."""
    return subprocess.run(
        ["dpkg-query", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        check=False,
    ).stdout
