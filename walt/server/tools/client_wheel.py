"""`python -m walt.server.tools.client_wheel DIRECTORY`: this release as one wheel, for clients.

A client of another version installs what its server gives it (spec user-surface §4.4). The
wheel (PEP 427) is made from the files that run here, however they were installed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import walt

NAME = f"walt-{walt.__version__}-py3-none-any.whl"
FACTS = f"walt-{walt.__version__}.dist-info"
MINIMAL_METADATA = (
    f"Metadata-Version: 2.1\nName: walt\nVersion: {walt.__version__}\nRequires-Python: >=3.9\n"
)
MINIMAL_ENTRY_POINTS = (
    "[console_scripts]\nwalt = walt.client.main:main\n"
    "walt-autocomplete-helper = walt.client.completion.helper:main\n"
)
STAMP = (1980, 1, 1, 0, 0, 0)  # so that the same release makes the same wheel


def files() -> dict[str, bytes]:
    """Return what the wheel holds, but for its record, by path."""
    package = Path(walt.__file__).parent
    top = package.parent
    wanted = [*package.rglob("*"), top / "twisted" / "plugins" / "walt_plugin.py"]
    found = {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(wanted)
        if path.is_file() and "__pycache__" not in path.parts
    }
    told, entry_points = _installed()
    found[f"{FACTS}/METADATA"] = told.encode()
    found[f"{FACTS}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: walt\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    found[f"{FACTS}/entry_points.txt"] = entry_points.encode()
    return found


def _installed() -> tuple[str, str]:
    """Return the metadata and the entry points of this installation, if it has some."""
    try:
        known = metadata.distribution("walt")
    except metadata.PackageNotFoundError:
        return MINIMAL_METADATA, MINIMAL_ENTRY_POINTS
    told = known.read_text("METADATA") or ""
    if known.version != walt.__version__ or not told:
        told = MINIMAL_METADATA
    return told, known.read_text("entry_points.txt") or MINIMAL_ENTRY_POINTS


def build(directory: Path) -> Path:
    """Write the wheel into a directory, at once; return its path."""
    content = files()
    record = []
    for name, data in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}\n")
    content[f"{FACTS}/RECORD"] = ("".join(record) + f"{FACTS}/RECORD,,\n").encode()
    temporary = directory / f".{NAME}.{os.getpid()}"
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name, STAMP)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    path = directory / NAME
    temporary.replace(path)
    return path


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
