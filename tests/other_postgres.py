"""PostgreSQL of the other Debian, beside that of this machine, which does not notice.

Debian 12 and 13 have one major version each. The packages of the other one are fetched with
lists of apt of their own, unpacked, and run with the libraries that came with them. They are
kept below the cache of tests (WALT_TEST_CACHE).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.patience import patient

CACHE = Path(os.environ.get("WALT_TEST_CACHE", "/var/cache/walt"))
VERSIONS = {"bookworm": 15, "trixie": 17}
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Of no use here, and large.
LEFT_OUT = ("libllvm", "libz3", "perl", "libperl", "locales")
LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
WRAPPER = """\
#!/bin/sh
exec {loader} --library-path {libraries} --argv0 {name} {real} "$@"
"""


def release() -> str:
    """Return the code name of this machine's Debian."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise AssertionError("this is no Debian")


def installations(place: Path) -> tuple[Path, int, int]:
    """Return a directory like /usr/lib/postgresql with both, and their versions; blocking."""
    mine = release()
    (other,) = [one for one in VERSIONS if one != mine]
    there = CACHE / "postgres" / other
    if not (there / "done").exists():
        _fetch(other, there)
    place.mkdir(parents=True)
    theirs, ours = VERSIONS[other], VERSIONS[mine]
    (place / str(theirs)).symlink_to(there / f"usr/lib/postgresql/{theirs}")
    (place / str(ours)).symlink_to(f"/usr/lib/postgresql/{ours}")
    return place, *sorted((ours, theirs))  # type: ignore[return-value]


def _fetch(other: str, there: Path) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=there.parent) as name:
        place, root = Path(name) / "apt", Path(name) / "root"
        for one in ("lists/partial", "archives/partial"):
            (place / one).mkdir(parents=True)
        (place / "status").touch()
        (place / "sources.list").write_text(f"deb [signed-by={KEYS}] {_mirror()} {other} main\n")
        options = [
            word for setting in (
                f"Dir::Etc::sourcelist={place}/sources.list", "Dir::Etc::sourceparts=-",
                f"Dir::State::lists={place}/lists", f"Dir::State::status={place}/status",
                f"Dir::Cache={place}", f"Dir::Cache::archives={place}/archives",
                "APT::Sandbox::User=root", "Acquire::Languages=none", "APT::Install-Recommends=no",
            ) for word in ("-o", setting)
        ]
        for words in (("update",), (
            "--yes", "--download-only", "install", f"postgresql-{VERSIONS[other]}",
        )):
            _run("apt-get", "-qq", *options, *words)
        root.mkdir()
        for package in sorted((place / "archives").glob("*.deb")):
            if not package.name.startswith(LEFT_OUT):
                _run("dpkg-deb", "--extract", str(package), str(root))
        _wrap(root, there, VERSIONS[other])
        (root / "done").touch()
        shutil.rmtree(there, ignore_errors=True)
        root.rename(there)


def _mirror() -> str:
    """Return where this machine takes its own Debian from: the other one is there, too."""
    found = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {release()}",
                 "Component: main", "Created-By: Packages").split()
    assert found, "apt has no source of Debian here"
    return found[0]


def _wrap(root: Path, there: Path, version: int) -> None:
    """Put scripts in place of the programs, which use the libraries beside them."""
    programs = root / f"usr/lib/postgresql/{version}/bin"
    real = programs.rename(programs.with_name("real"))
    programs.mkdir()
    # Compiled queries would need what was left out.
    (root / f"usr/lib/postgresql/{version}/lib/llvmjit.so").unlink(missing_ok=True)
    home = there / programs.relative_to(root)
    loader = next(
        there / one for one in ("lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2",
                                "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
                                "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
        if (root / one).is_file()
    )
    for program in real.iterdir():
        script = programs / program.name
        script.write_text(WRAPPER.format(
            loader=loader, libraries=":".join(str(there / one) for one in LIBRARIES),
            name=home / program.name, real=there / real.relative_to(root) / program.name,
        ))
        script.chmod(0o755)


def _run(*argv: str) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patient(600),
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout
