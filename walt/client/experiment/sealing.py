"""One ZIP file of an archive, with checksums, a text for people and one for programs.

The text for programs is an RO-Crate 1.1 (researchobject.org/ro-crate/1.1) that describes the
run as an action of its file, as Process Run Crate 0.5 says.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
import zipfile
from pathlib import Path

from walt.client.errors import Failure
from walt.client.experiment.archive import CHECKSUMS, CRATE, IMAGES, README, TEXT, Archive
from walt.client.experiment.showing import reasons, table
from walt.common.errors import in_words
from walt.common.files import keep_names

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
OCI = "https://github.com/opencontainers/image-spec/blob/main/image-layout.md"
COMPRESSED = (".gz", ".parquet")  # of these, a second time takes long and gives nothing
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # ZIP knows none before


def seal(
    folder: Path, target: Path,
    images: Callable[[Archive, Callable[[bytes], object]], object] | None = None,
) -> int:
    """Write the archive of a folder as a ZIP file; return the number of its files.

    What a run that was killed left is sealed as it is; points that were cut off are told in its
    text alone. `images` gives those that it used, as one
    file, unless the folder has them. Raises Failure.
    """
    if not folder.is_dir():
        raise Failure(f"{folder} is no folder of a run")
    archive = Archive(folder)
    names = sorted(archive.names - {CHECKSUMS, README, CRATE, *archive.cut_points()})
    if IMAGES in names:
        images = None
    if target.exists():
        raise Failure(f"{target} exists; give another name, or remove it")
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        with zipfile.ZipFile(beside, "x", zipfile.ZIP_DEFLATED) as sealed:
            sums = [f"{_add_file(sealed, folder / name, name)}  {name}\n" for name in names]
            if images is not None:
                with _Member(sealed, IMAGES) as member:
                    images(archive, member.write)
                names.append(IMAGES)
                sums.append(f"{member.checksum}  {IMAGES}\n")
            for name, text in (
                (README, _readme(archive, names)),
                (CRATE, json.dumps(_crate(archive, names), indent=1) + "\n"),
            ):
                sums.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n")
                sealed.writestr(zipfile.ZipInfo(name, _EARLIEST), text)
            sealed.writestr(zipfile.ZipInfo(CHECKSUMS, _EARLIEST), "".join(sorted(sums)))
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        if target.exists():
            raise Failure(f"{target} exists now: somebody else wrote it")
        beside.rename(target)
        keep_names(target.parent)
    except (OSError, zipfile.BadZipFile) as error:
        raise Failure(f"{target} could not be written: {in_words(error)}") from None
    finally:
        beside.unlink(missing_ok=True)
    return len(names) + 3


class _Member:
    """A file of a ZIP file that is written in pieces; `checksum` is that of what was written."""

    def __init__(self, sealed: zipfile.ZipFile, name: str) -> None:
        entry = zipfile.ZipInfo(name, _EARLIEST)
        if not name.endswith(COMPRESSED):
            entry.compress_type = zipfile.ZIP_DEFLATED
        self._file: IO[bytes] = sealed.open(entry, "w", force_zip64=True)
        self._state = hashlib.sha256()

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Write a piece."""
        self._state.update(data)
        self._file.write(data)

    @property
    def checksum(self) -> str:
        """The SHA-256 of all pieces."""
        return self._state.hexdigest()


def _add_file(sealed: zipfile.ZipFile, path: Path, name: str) -> str:
    """Add a file in pieces; return its checksum."""
    with open(path, "rb") as source, _Member(sealed, name) as member:
        while piece := source.read(1 << 20):
            member.write(piece)
    return member.checksum


def verify(archive: Archive) -> list[str]:
    """Return what a sealed archive has that its checksums do not tell, or otherwise."""
    if CHECKSUMS not in archive.names:
        return []
    wrong, told = [], {}
    for line in archive.data(CHECKSUMS).decode(errors="replace").splitlines():
        value, _, name = line.partition("  ")
        told[name] = value
    for name in sorted(archive.names - {CHECKSUMS}):
        checksum = hashlib.sha256()
        for piece in archive.pieces(name):
            checksum.update(piece)
        if told.pop(name, None) != checksum.hexdigest():
            wrong.append(f"{name} is not what was sealed")
    return wrong + [f"{name} is missing" for name in sorted(told)]


def _readme(archive: Archive, names: list[str]) -> str:
    manifest = archive.manifest
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(manifest["began"]))
    roles = "\n".join(
        f"- {role}: " + ", ".join(
            f"{name} ({manifest['nodes'].get(name, {}).get('model', '?')})" for name in names
        ) for role, names in manifest["roles"].items()
    )
    images = "\n".join(f"- {name}: {found}" for name, found in manifest["images"].items())
    return (
        f"# {manifest['name']}\n\n"
        f"A run of an experiment on a WalT platform, begun {began} UTC; its state is"
        f" {manifest['state']}.\n"
        + (f"Licence: {manifest['licence']}.\n" if manifest["licence"] else "")
        + f"\nNodes:\n\n{roles}\n\nImages, by their ids:\n\n{images or '- none is known'}\n\n"
        f"Points:\n\n    " + "\n".join([table(archive), *reasons(archive)]).replace("\n", "\n    ")
        + "\n\n"
        f"`{TEXT}` is what was done, `points/` what it gave, `files/` what the steps saved,\n"
        f"`commands/` what they printed; {CHECKSUMS} has checksums of all of it. Where they are\n"
        "there, `logs.*` are log lines, `clocks.json` how far the clocks of the nodes were from\n"
        "the server's, and `topology.json` where the nodes are connected.\n"
        + (
            f"`{IMAGES}` has the images, as an OCI archive: `walt experiment replay` takes them\n"
            f"out of it, as does `skopeo copy oci-archive:{IMAGES}:NAME …`.\n"
            if IMAGES in names else ""
        ) + "`walt experiment show` and `walt experiment diff` read this file.\n"
    )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _crate(archive: Archive, names: list[str]) -> dict[str, Any]:
    manifest = archive.manifest
    files = [{"@id": name} for name in [*names, README]]
    root: dict[str, Any] = {
        "@id": "./", "@type": "Dataset", "name": manifest["name"],
        "description": f"A run of the experiment {manifest['name']} on a WalT platform",
        "datePublished": _moment(manifest["ended"] or manifest["began"]),
        "license": manifest["licence"] or "not told", "hasPart": files,
        "conformsTo": {"@id": PROFILE}, "mentions": {"@id": "#run"},
    }
    action: dict[str, Any] = {
        "@id": "#run", "@type": "CreateAction", "name": f"run {manifest['run']}",
        "instrument": {"@id": TEXT}, "startTime": _moment(manifest["began"]),
        "result": [{"@id": name} for name in names if name.startswith(("points/", "files/"))],
        "actionStatus": {
            "@id": "http://schema.org/" + (
                "CompletedActionStatus" if manifest["state"] == "done" else "FailedActionStatus"
            )
        },
    }
    if manifest["ended"]:
        action["endTime"] = _moment(manifest["ended"])
    return {
        "@context": "https://w3id.org/ro/crate/1.1/context",
        "@graph": [
            {
                "@id": CRATE, "@type": "CreativeWork", "about": {"@id": "./"},
                "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            },
            root, action,
            {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate",
             "version": "0.5"},
            *({"@id": name, "@type": ["File", "SoftwareApplication"] if name == TEXT else "File",
               "name": name, **(_IMAGES if name == IMAGES else {})} for name in [*names, README]),
        ],
    }


_IMAGES = {
    "description": "The images that the nodes booted, as an archive of the OCI image layout",
    "encodingFormat": ["application/x-tar", {"@id": OCI}],
}
