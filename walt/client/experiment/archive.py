"""What a run leaves: a folder that only grows, and is whole after each point.

    manifest.json      format, versions, who plays which role, images, moments, state
    experiment.yaml    the file as it was, and scripts/
    points/00001.json  a point: values, outcome, commands, results
    files/p00001/…     what steps saved: role/file, or role/node/file
    commands/…         what they printed
    boots.json         the boots of its nodes
    clocks.json        offsets of their clocks
    topology.json      the switches above them
    logs.jsonl.gz      the log lines of its nodes, one JSON list each; or logs.parquet
    logs.json          how many lines of which streams these are
    images/oci.tar     the images of its nodes, where these are kept
"""

from __future__ import annotations

import fcntl
import json
import lzma
import os
import re
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from walt.client.answers import NULL, NUMBER, looks_wrong
from walt.client.errors import Failure
from walt.common.errors import in_words
from walt.common.files import keep_names

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import IO, Any

FORMAT = 1
MANIFEST, TEXT, SCRIPTS = "manifest.json", "experiment.yaml", "scripts"
POINTS, FILES, BOOTS, LOGS = "points", "files", "boots.json", "logs.jsonl.gz"
PARQUET, INDEX = "logs.parquet", "logs.json"
CLOCKS, TOPOLOGY, IMAGES = "clocks.json", "topology.json", "images/oci.tar"
LOCK = ".lock"  # held by the program that writes the folder; it is no file of the archive
CHECKSUMS, README, CRATE = "manifest-sha256.txt", "README.md", "ro-crate-metadata.json"
MOST_FILES, LARGEST, MOST_POINT = 200_000, 64 << 20, 4 << 20
LARGEST_NUMBER, LAST_MOMENT = 1e300, 1 << 33  # epoch seconds: of the year 2242
# How manifests and points look; see `answers.looks_wrong`.
_MANIFEST = {
    "name": str, "licence": str, "run": str, "began": NUMBER, "ended": (*NUMBER, NULL),
    "state": str, "walt": {}, "roles": {}, "nodes": {}, "images": {}, "booted": {},
    "commit": (str, NULL), "spans": [[(*NUMBER, NULL)]],
}
_NODE = {
    **dict.fromkeys(("mac", "ip", "model", "image", "kernel", "cpu", "processors"), str),
    "settings": {},
}
_COMMAND = {
    "step": int, "role": str, "node": str, "outcome": str, "status": (int, NULL),
    "background": bool, "command": str,
}
_POINT = {
    "number": int, "repetition": int, "values": {}, "tries": int, "outcome": str, "reason": str,
    "commands": [_COMMAND], "results": {}, "began": NUMBER, "seconds": NUMBER,
}
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def _float(text: str) -> float:
    number = float(text)
    if not abs(number) < LARGEST_NUMBER:
        raise ValueError("a number is too large")
    return number


def _int(text: str) -> int:
    if len(text) > 19:
        raise ValueError("a number is too large")
    return int(text)


def _below(folder: Path) -> Iterator[str]:
    """Yield the names of the files of a folder; symbolic links are none."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def _is_cut(data: bytes) -> bool:
    """Tell whether an object of `write_json` lacks its end; blocks never written are NUL bytes."""
    return not data.rstrip().endswith(b"}")


def check_path(name: str) -> str:
    """Return the name of a file of an archive. Raises Failure for what leads elsewhere."""
    parts = PurePosixPath(name).parts
    if not parts or len(parts) > 6 or not all(map(_PART.fullmatch, parts)) \
            or "/".join(parts) != name:
        raise Failure(f"the archive has a file with the name {name[:80]!r}: nothing is read of it")
    return name


@contextmanager
def fresh(path: Path, *, lasting: bool = True) -> Iterator[IO[bytes]]:
    """Give a file to write, which has its name when it is whole, and `lasting` on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        beside.rename(path)
        if lasting:
            keep_names(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a file, whole or not at all, and `lasting` to the disk."""
    with fresh(path, lasting=lasting) as file:
        file.write(data)


def write_json(path: Path, value: object, *, lasting: bool = True) -> None:
    """Write a value as JSON that people can read, too."""
    write(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n", lasting=lasting)


class Archive:
    """Files of an archive, by their names with slashes: a folder, or a ZIP file of one.

    Raises Failure for what is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        try:
            if path.is_dir():
                # People put files of their own into a folder: what is none of ours is not seen.
                names = [
                    name for name in _below(path) if all(map(_PART.fullmatch, name.split("/")))
                ]
            else:
                self._zip = zipfile.ZipFile(path)
                names = sorted(
                    entry.filename for entry in self._zip.infolist() if not entry.is_dir()
                )
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise Failure(f"{path} is no archive of an experiment: {in_words(error)}") from None
        if len(names) > MOST_FILES:
            raise Failure(f"{path} has more than {MOST_FILES} files")
        self.names = frozenset(map(check_path, names))
        self.manifest: dict[str, Any] = self._manifest()

    def _manifest(self) -> dict[str, Any]:
        found = self.json(MANIFEST)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            told = found.get("format") if isinstance(found, dict) else None
            raise Failure(
                f"{self.path} has the format {str(told)[:20]}, and this walt reads {FORMAT} alone"
            )
        wrong = looks_wrong(found, _MANIFEST, MANIFEST) or looks_wrong(
            found.get("layers", {}), {}, "layers"
        ) or next(filter(None, (
            *(looks_wrong(names, [str], "layers") for names in found.get("layers", {}).values()),
            *(looks_wrong(names, [str], "roles") for names in found["roles"].values()),
            *(looks_wrong(node, _NODE, "nodes") for node in found["nodes"].values()),
            *(looks_wrong(text, str, "images") for text in found["images"].values()),
            *(looks_wrong(text, str, "booted") for text in found["booted"].values()),
        )), "")
        moments = () if wrong else (
            found["began"], found["ended"] or 0,
            *(moment or 0 for span in found["spans"] for moment in span),
        )
        if not all(0 <= moment < LAST_MOMENT for moment in moments):
            wrong = "its moments are none"
        elif not wrong and any(len(span) != 2 or span[0] is None for span in found["spans"]):
            wrong = "spans are pairs"
        elif not wrong and not re.fullmatch("[0-9a-f]{12}", found["run"]):
            wrong = "the run has no such name"
        if wrong:
            raise Failure(f"{self.path} makes no sense: {wrong}")
        return found

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file. Raises Failure."""
        if name not in self.names:
            raise Failure(f"{self.path} has no file {name}")
        try:
            with (
                open(self.path / name, "rb") if self._zip is None else self._zip.open(name)
            ) as file:
                while piece := file.read(1 << 20):
                    yield piece
        except (
            OSError, zipfile.BadZipFile, ValueError, RuntimeError, EOFError, zlib.error,
            lzma.LZMAError,
        ) as error:
            raise Failure(f"{name} of {self.path} cannot be read: {in_words(error)}") from None

    def end(self, name: str, most: int) -> tuple[int, bytes]:
        """Return how long a file is, and its last bytes. Raises Failure.

        Of a file of a ZIP file, they are kept from all pieces: there is no way to its end.
        """
        if self._zip is None and name in self.names:
            path = self.path / name
            with path.open("rb") as file:
                size = path.stat().st_size
                file.seek(max(0, size - most))
                return size, file.read(most)
        size, last = 0, b""
        for piece in self.pieces(name):
            size, last = size + len(piece), (last + piece)[-most:]
        return size, last

    def data(self, name: str, most: int = LARGEST) -> bytes:
        """Return the content of a file that is not large. Raises Failure."""
        found = bytearray()
        for piece in self.pieces(name):
            found += piece
            if len(found) > most:
                raise Failure(f"{name} of {self.path} is larger than {most} bytes")
        return bytes(found)

    def json(self, name: str, most: int = LARGEST) -> Any:
        """Return the value of a JSON file. Raises Failure."""
        return self._value(name, self.data(name, most))

    def _value(self, name: str, data: bytes) -> Any:
        try:
            return json.loads(data, parse_float=_float, parse_int=_int, parse_constant=_float)
        except (ValueError, RecursionError) as error:
            raise Failure(f"{name} of {self.path} is no JSON: {error}") from None

    def cut_points(self) -> list[str]:
        """Return the files of points that have not their end: the power went while these began.

        What they were is not known; `points` has none of them. Raises Failure.
        """
        return [name for name in self._points() if _is_cut(self.data(name, MOST_POINT))]

    def _points(self) -> Iterator[str]:
        return (
            name for name in sorted(self.names)
            if re.fullmatch(rf"{POINTS}/\d{{5}}\.json", name)
        )

    def points(self) -> dict[int, dict[str, Any]]:
        """Return the points by their number. Raises Failure."""
        found = {}
        for name in self._points():
            data = self.data(name, MOST_POINT)
            if not _is_cut(data):
                point = self._value(name, data)
                wrong = looks_wrong(point, _POINT, name) or next(filter(None, (
                    looks_wrong(numbers, [NUMBER], f"{name}.results")
                    for numbers in point["results"].values()
                )), "")
                if not wrong and name != f"{POINTS}/{point['number']:05d}.json":
                    wrong = f"{name} is of the point {point['number']}"
                if wrong:
                    raise Failure(f"{self.path} makes no sense: {wrong}")
                found[point["number"]] = point
        return found

    def scripts(self) -> dict[str, str]:
        """Return the texts of scripts by their names. Raises Failure."""
        return {
            name.partition("/")[2]: self.data(name).decode(errors="replace")
            for name in self.files(SCRIPTS)
        }

    def files(self, below: str) -> Iterator[str]:
        """Yield the names of files below a folder."""
        return (name for name in sorted(self.names) if name.startswith(f"{below}/"))


class Folder:
    """A folder that a run writes; it goes on where an earlier run ended.

    Nothing is written before `begin` made it or `resume` took it, nor after `leave`: at no time
    do two programs write the same one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._made: list[Path] = []

    def begin(self, manifest: Mapping[str, Any], text: str, scripts: Mapping[str, str]) -> None:
        """Make it. Raises Failure when there is something already."""
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise Failure(
                f"{self.path} exists; give another --to, or go on with"
                f" `walt experiment resume {self.path}`"
            ) from None
        except OSError as error:
            raise Failure(f"{self.path} cannot be made: {in_words(error)}") from None
        self._take()
        texts = {TEXT: text, **{f"{SCRIPTS}/{name}": script for name, script in scripts.items()}}
        self._made = [self.path / name for name in (MANIFEST, *texts)]
        for name, content in texts.items():
            write(self.path / name, content.encode())
        self.write_manifest(manifest)

    def resume(self) -> None:
        """Take one that an earlier run wrote, unless this one has it. Raises Failure.

        One that leads elsewhere is refused.
        """
        if self._lock is None:
            for path in self.path.rglob("*"):
                if path.is_symlink():
                    raise Failure(f"{path} is a symbolic link: this folder is not gone on with")
            self._take()

    def _take(self) -> None:
        try:
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise Failure(f"{self.path} cannot be written: {in_words(error)}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Failure(f"{self.path}: another program works on this run") from None
        except OSError:
            pass  # a file system that knows no locks
        self._lock = lock

    def leave(self) -> None:
        """Let others go on with it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Remove what `begin` made: nothing was done. What others put there stays."""
        for path in self._made:
            path.unlink(missing_ok=True)
        (self.path / LOCK).unlink(missing_ok=True)
        self.leave()
        with suppress(OSError):
            (self.path / SCRIPTS).rmdir()
        with suppress(OSError):
            self.path.rmdir()

    def _check(self) -> None:
        if self._lock is None:
            raise Failure(f"{self.path} is no folder of this run: nothing is written into it")

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest anew."""
        self._check()
        write_json(self.path / MANIFEST, manifest)

    def write_point(self, point: Mapping[str, Any], *, lasting: bool = True) -> None:
        """Write a point as it is now.

        With the power, one that is not `lasting` may be lost, or be one of `cut_points`.
        """
        self._check()
        write_json(self.path / POINTS / f"{point['number']:05d}.json", point, lasting=lasting)

    def last_written(self) -> float:
        """Return when a point or the manifest was written last, in epoch seconds."""
        files = [self.path / MANIFEST, *(self.path / POINTS).glob("*.json")]
        return max(file.stat().st_mtime for file in files)

    def place(self, *parts: str) -> Path:
        """Return where a file goes that a step saved."""
        return self.path.joinpath(FILES, *parts)
