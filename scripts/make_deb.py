"""Make a Debian package of the server: make_deb.py [DIRECTORY], run by `make deb` as root.

The package holds a virtual environment in /opt/walt, made with the Python of this Debian: one
package for each release. It installs nothing else, and starts nothing: `walt-server-setup` sees
to Debian's packages and to the server. When the package is removed, what set-up made goes, too;
data and settings stay. When it is purged, settings, caches and logs go; data stay.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"  # that of Debian, whatever else this machine has
LONGEST = 1800  # seconds for one program
# What it is made of: a copy, for all that is made on the way would end in the tree, and what an
# earlier build has left there would end in the package. `.assets` is there where tests run.
SOURCES = (
    "walt", "twisted", "scripts", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", ".assets",
)
PASSED_BY = shutil.ignore_patterns("__pycache__", "node_modules", "dropin.cache")
# The environment is made where it will be: its programs name their interpreter by its path.
BUILD = """
set -e
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/opt,upperdir=/mnt/upper,workdir=/mnt/work none /opt
mkdir -p /opt/walt
mount --bind "$1" /opt/walt
"$2" -m venv /opt/walt
/opt/walt/bin/pip install --quiet --disable-pip-version-check --no-compile "$3[server]"
if /opt/walt/bin/pip show --quiet --disable-pip-version-check setuptools 2> /dev/null; then
    /opt/walt/bin/pip uninstall --quiet --yes --disable-pip-version-check setuptools
fi
find /opt/walt -name __pycache__ -prune -exec rm -r {} +
"""
CONTROL = """\
Package: walt-server
Version: {version}
Architecture: {architecture}
Maintainer: WalT developers <walt@localhost>
Section: net
Priority: optional
Depends: python3 (>= {python}~), python3 (<< {following}~), python3-venv, ca-certificates
Description: reproducible network testbed of boards, PCs and virtual machines
 The server, in a virtual environment of its own (/opt/walt). After the installation:
 /opt/walt/bin/walt-server-setup --set network.walt-net.raw-device=INTERFACE
"""
SCRIPTS = {
    "postinst": """\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
if [ -e /etc/systemd/system/walt-server.service ]; then
    echo "To have the server use this version: walt-server-setup"
else
    echo "To make a server of this machine: /opt/walt/bin/walt-server-setup --help"
fi
""",
    "prerm": """\
#!/bin/sh
set -e
if [ "$1" = remove ]; then
    if [ -e /etc/systemd/system/walt-server.service ] || [ -e /usr/local/sbin/walt-server-run ]
    then
        /opt/walt/bin/walt-server-setup --remove
    fi
    find /opt/walt \\( -name __pycache__ -o -name dropin.cache \\) -prune -exec rm -r {} +
fi
""",
    # /opt is the machine's (FHS 3.0, 3.13): dpkg removes it with the last package that has it.
    "postrm": """\
#!/bin/sh
set -e
[ -d /opt ] || mkdir -m 755 /opt
if [ "$1" = remove ]; then  # not by an upgrade: the server runs
    rm -rf --one-file-system /run/walt /run/walt-server-setup.lock
fi
share=/usr/local/share
for place in $share/man/man? $share/zsh/site-functions $share/zsh; do
    [ ! -d "$place" ] || rmdir --ignore-fail-on-non-empty "$place"
done
if [ "$1" = purge ]; then
    rm -rf --one-file-system /etc/walt /etc/skel/.walt /var/cache/walt /var/log/walt
    if [ -e /var/lib/walt ]; then
        echo "The data of the platform stay in /var/lib/walt; without them: rm -r /var/lib/walt"
    fi
fi
""",
}


def run(*argv: str) -> str:
    """Run a program, which must succeed; return its output."""
    return subprocess.run(
        argv, check=True, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        timeout=LONGEST, cwd=ROOT,
    ).stdout.strip()


def version() -> str:
    """Return the version of the sources."""
    (found,) = re.findall(r'^__version__ = "([^"]+)"', (ROOT / "walt/__init__.py").read_text(),
                          re.MULTILINE)
    return str(found)


def copy(place: Path) -> Path:
    """Copy the sources into a new directory; return it."""
    place.mkdir()
    for name in SOURCES:
        one = ROOT / name
        if one.is_dir():
            shutil.copytree(one, place / name, ignore=PASSED_BY)
        elif one.exists():
            shutil.copy2(one, place / name)
    return place


def make(directory: Path) -> Path:
    """Make the package in a directory; return its path."""
    major, minor = (int(number) for number in run(
        PYTHON, "-c", "import sys; print(*sys.version_info[:2])"
    ).split())
    architecture = run("dpkg", "--print-architecture")
    with tempfile.TemporaryDirectory(prefix="walt-deb-") as name:
        sources, stage = copy(Path(name) / "sources"), Path(name) / "package"
        inside = stage / "opt/walt"
        inside.mkdir(parents=True)
        stage.chmod(0o755)
        run(PYTHON, str(sources / "scripts/make_assets.py"))
        run("unshare", "--mount", "--propagation", "private", "sh", "-c", BUILD, "sh",
            str(inside), PYTHON, str(sources))
        about = stage / "DEBIAN"
        about.mkdir()
        (about / "control").write_text(CONTROL.format(
            version=version(), architecture=architecture, python=f"{major}.{minor}",
            following=f"{major}.{minor + 1}",
        ))
        for script, text in SCRIPTS.items():
            (about / script).write_text(text)
            (about / script).chmod(0o755)
        directory.mkdir(parents=True, exist_ok=True)
        made = directory / f"walt-server_{version()}_{architecture}.deb"
        run("dpkg-deb", "--root-owner-group", "--build", "-Zxz", "-z1", str(stage), str(made))
    return made


def main() -> int:
    """Make it; print where it is."""
    os.umask(0o022)  # all may run what is in it
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist")
    try:
        print(make(directory.absolute()))
    except (subprocess.SubprocessError, OSError) as error:
        print(f"make_deb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
