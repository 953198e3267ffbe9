"""The images of a podman storage, as values of the domain."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import CommandFailed, Invalid, NotFound
from walt.common.files import write_atomic
from walt.server.adapters.podman.lasting import Settling
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.removal import remove_images, run_freeing
from walt.server.domain.images.interfaces import IImageStore
from walt.server.domain.images.model import MODELS_LABEL, StoredImage
from walt.server.runtime.process import ProcessRunner

_log = Logger()

REGISTRY = "docker.io/"  # WalT names are stored as names of that registry
MOUNTS = "localhost/walt/mounts"  # tags that keep a mounted image
TEMPORARY = "localhost/walt/temporary"  # images before they have their name
BACKUPS = "localhost/walt/backups"  # tags that keep an image while its name is taken away
CACHE_FORMAT = 2
NOT_KNOWN = "image not known"  # podman's words
TIMEOUT = 120.0


def mount_tag(image_id: str) -> str:
    """Return the tag that keeps an image while it is mounted."""
    return f"{MOUNTS}:{image_id[:12]}"


class MetadataCache:
    """What never changes for an image id, kept as JSON in `path` (safe to delete)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] | None = None

    def load(self) -> dict[str, dict[str, Any]]:
        """Return the metadata of known ids; an unreadable or older file counts as empty."""
        if self._known is None:
            self._known = {}
            try:
                content = json.loads(self._path.read_text())
                if content.get("format") == CACHE_FORMAT:
                    self._known = dict(content["images"])
            except (OSError, ValueError, AttributeError, KeyError, TypeError):
                pass
        return self._known

    def store(self, known: dict[str, dict[str, Any]]) -> None:
        """Replace the cache when it changed."""
        if known != self._known:
            self._known = known
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps({"format": CACHE_FORMAT, "images": known}))


@implementer(IImageStore)
class PodmanStore:
    """A podman storage, read and changed through the podman command.

    `cache` is the JSON file of metadata. Changes are serialised; podman locks its
    storage against others.
    """

    def __init__(self, runner: ProcessRunner, storage: Storage, cache: Path) -> None:
        self._runner = runner
        self.storage = storage
        self._cache = MetadataCache(cache)
        self._lock = DeferredLock()
        self._settling = Settling(runner, storage)

    async def _podman(self, *words: str) -> bytes:
        result = await self._runner.run(
            self.storage.podman(*words), timeout=TIMEOUT, network="host"
        )
        return result.stdout

    async def scan(self) -> list[StoredImage]:
        """Return one StoredImage for each WalT name; see IImageStore."""
        async with self._lock:
            # As JSON, each name of an image would come with all its names.
            names = _names_by_id((await self._podman(
                "image", "ls", "--no-trunc", "--filter", f"label={MODELS_LABEL}",
                "--format", "{{.ID}} {{.Repository}}:{{.Tag}}",
            )).decode())
            known = {
                image_id: meta for image_id, meta in self._cache.load().items()
                if image_id in names
            }
            missing = [image_id for image_id in names if image_id not in known]
            known.update(await self._inspect(missing))
            self._cache.store(known)
        return [
            _image(fullname, image_id, known[image_id])
            for image_id, fullnames in names.items()
            if image_id in known and known[image_id]["labels"].get(MODELS_LABEL)
            for fullname in sorted(fullnames)
        ]

    async def read(self, fullname: str) -> StoredImage:
        """Return one image as it is now; see IImageStore."""
        async with self._lock:
            return await self._read(REGISTRY + fullname, fullname)

    async def _read(self, reference: str, fullname: str) -> StoredImage:
        try:
            answer = await self._podman("image", "inspect", "--", reference)
        except CommandFailed as error:
            if NOT_KNOWN in str(error):
                raise NotFound(f"no image named {fullname} in the store") from None
            raise
        (item,) = json.loads(answer)
        if not (item.get("Labels") or {}).get(MODELS_LABEL):
            raise Invalid(f"image {fullname} has no label {MODELS_LABEL}: it is not for nodes")
        metadata = self._metadata(item)
        self._cache.store({**self._cache.load(), item["Id"]: metadata})
        return _image(fullname, item["Id"], metadata)

    async def _inspect(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Return the metadata of images: one command, one each if that one fails."""
        if not ids:
            return {}
        try:
            answer = json.loads(await self._podman("image", "inspect", "--", *ids))
        except (CommandFailed, ValueError):
            if len(ids) == 1:
                _log.warn("image {id} cannot be inspected: ignored", id=ids[0])
                return {}
            found: dict[str, dict[str, Any]] = {}
            for image_id in ids:
                found.update(await self._inspect([image_id]))
            return found
        return {item["Id"]: self._metadata(item) for item in answer}

    def _metadata(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "digest": item.get("Digest", ""),
            "created_ts": epoch(item.get("Created", "")),
            "size_kib": int(item.get("Size") or 0) // 1024,
            "labels": dict(item.get("Labels") or {}),
            "layers": self._layers(item.get("GraphDriver", {}).get("Data") or {}),
            "contents": list((item.get("RootFS") or {}).get("Layers") or []),
        }

    def _layers(self, data: Mapping[str, str]) -> list[str]:
        """Return the layer directories, top first, by the short names of `overlay/l/`."""
        paths = [data.get("UpperDir", ""), *data.get("LowerDir", "").split(":")]
        layers = []
        for path in filter(None, paths):
            try:
                layers.append(f"l/{(Path(path).parent / 'link').read_text().strip()}")
            except OSError:
                layers.append(path)
        return layers

    async def tag(self, image_id: str, fullname: str) -> None:
        """Give an image a WalT name."""
        async with self._lock:
            await self._podman("image", "tag", image_id, REGISTRY + fullname)
        await self._settling.after(f"naming an image {fullname}")

    async def untag(self, fullname: str) -> None:
        """Remove a WalT name, and the image when it was its last one; NotFound."""
        async with self._lock:
            try:
                await run_freeing(
                    self._runner, self.storage, "image", "rm", "--", REGISTRY + fullname
                )
            except CommandFailed as error:
                if NOT_KNOWN in str(error):
                    raise NotFound(f"no image named {fullname} in the store") from None
                raise
        await self._settling.after(f"removing the image {fullname}")

    def temporary(self) -> str:
        """Return a new reference; see IImageStore."""
        return f"{TEMPORARY}:{secrets.token_hex(8)}"

    async def examine(self, reference: str, fullname: str) -> StoredImage:
        """Return the image of a temporary reference; see IImageStore."""
        async with self._lock:
            return await self._read(reference, fullname)

    async def tag_temporary(self, image_id: str, reference: str) -> None:
        """Give an image a temporary reference."""
        async with self._lock:
            await self._podman("image", "tag", image_id, reference)

    async def promote(self, reference: str, fullname: str) -> None:
        """Name the image of a temporary reference; see IImageStore."""
        name, backup = REGISTRY + fullname, f"{BACKUPS}:{secrets.token_hex(8)}"
        await self._settling.before()  # what gets the name is whole
        async with self._lock:
            exists = await self._runner.run(
                self.storage.podman("image", "exists", name), timeout=TIMEOUT, network="host",
                check=False,
            )
            if exists.status == 0:
                await self._podman("image", "tag", name, backup)
            try:
                await self._podman("image", "tag", reference, name)
            finally:
                await remove_images(self._runner, self.storage, reference, backup)
        await self._settling.after(f"naming an image {fullname}")

    async def discard(self, reference: str) -> None:
        """Remove a temporary reference."""
        async with self._lock:
            await remove_images(self._runner, self.storage, reference)

    async def sweep(self) -> None:
        """Remove temporary references that a killed server left."""
        if not any(self.storage.may_hold("images", name) for name in (TEMPORARY, BACKUPS)):
            return
        async with self._lock:
            listed = await self._podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
            left = [
                word for word in listed.decode().split() if word.startswith((TEMPORARY, BACKUPS))
            ]
            if left:
                await remove_images(self._runner, self.storage, *left)

    async def keep(self, image_id: str) -> None:
        """Keep an image although it may lose its last name."""
        async with self._lock:
            await self._podman("image", "tag", image_id, mount_tag(image_id))

    async def release(self, image_id: str) -> None:
        """Undo `keep`."""
        async with self._lock:
            await remove_images(self._runner, self.storage, mount_tag(image_id))


def _names_by_id(listed: str) -> dict[str, set[str]]:
    """Return the WalT names of each image in lines of an id and a name of `podman image ls`."""
    names: dict[str, set[str]] = {}
    for line in listed.splitlines():
        image_id, _, name = line.partition(" ")
        fullname = name.removeprefix(REGISTRY)
        if fullname != name and fullname.count("/") == 1 and "<none>" not in fullname:
            names.setdefault(image_id.removeprefix("sha256:"), set()).add(fullname)
    return names


def _image(fullname: str, image_id: str, meta: Mapping[str, Any]) -> StoredImage:
    return StoredImage(
        fullname, image_id, meta["digest"], meta["created_ts"], meta["size_kib"],
        meta["labels"], tuple(meta["layers"]), tuple(meta["contents"]),
    )


def epoch(text: Any) -> float:
    """Return epoch seconds of podman's date (RFC 3339 with nanoseconds), 0 if unreadable.

    Images made by other tools may have none.
    """
    if not isinstance(text, str):
        return 0.0
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)$", text)
    if match is None:
        return 0.0
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        return datetime.fromisoformat(f"{match[1]}{zone}").timestamp() + float(match[2] or 0)
    except (ValueError, OverflowError):
        return 0.0  # day 99, or a year that no clock shows
