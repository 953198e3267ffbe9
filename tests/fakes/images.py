"""Fakes of the interfaces of the images domain."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.common.errors import CommandFailed, Denied, Invalid, NotFound, Unavailable
from walt.server.adapters.podman import recipes
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.interfaces import (
    IContainers,
    IDefaultImages,
    IImageArchiver,
    IImageBuilder,
    IImageCatalog,
    IImageMounter,
    IImageSource,
    IImageStore,
    IImageUsers,
    INfsExporter,
    IRegistry,
)
from walt.server.domain.images.model import (
    MODELS_LABEL,
    ContainerOptions,
    Credentials,
    RegistryInfo,
    RemoteImage,
    StoredImage,
)
from walt.server.domain.requester import IRequester, acting
from walt.server.workers import build_context


@implementer(IImageStore)
class FakeStore:
    """Images in a dict, by name. Names that changed wait for `after`, the disk."""

    def __init__(self, *images: StoredImage) -> None:
        self.names = {image.fullname: image for image in images}
        self.by_id = {image.image_id: image for image in images}
        self.kept: set[str] = set()
        self.temporaries: dict[str, StoredImage] = {}
        self.after: Deferred[None] | None = None

    async def _settled(self) -> None:
        if self.after is not None:
            await self.after

    async def scan(self) -> list[StoredImage]:
        return list(self.names.values())

    async def read(self, fullname: str) -> StoredImage:
        if fullname not in self.names:
            raise NotFound(f"no image named {fullname} in the store")
        if not self.names[fullname].labels.get(MODELS_LABEL):
            raise Invalid(f"image {fullname} has no label")
        return self.names[fullname]

    async def tag(self, image_id: str, fullname: str) -> None:
        if image_id not in self.by_id:
            raise CommandFailed(f"no image {image_id}")
        self.names[fullname] = replace(self.by_id[image_id], fullname=fullname)
        await self._settled()

    async def untag(self, fullname: str) -> None:
        if fullname not in self.names:
            raise NotFound(f"no image named {fullname} in the store")
        image = self.names.pop(fullname)
        if image.image_id not in {one.image_id for one in self.names.values()} | self.kept:
            del self.by_id[image.image_id]
        await self._settled()

    def temporary(self) -> str:
        self.made = getattr(self, "made", 0) + 1
        return f"temporary:{self.made}"

    async def examine(self, reference: str, fullname: str) -> StoredImage:
        if reference not in self.temporaries:
            raise NotFound(f"no image {reference}")
        image = self.temporaries[reference]
        if not image.labels.get(MODELS_LABEL):
            raise Invalid(f"image {fullname} has no label")
        return replace(image, fullname=fullname)

    async def tag_temporary(self, image_id: str, reference: str) -> None:
        if image_id not in self.by_id:
            raise CommandFailed(f"no image {image_id}")
        self.temporaries[reference] = self.by_id[image_id]

    async def promote(self, reference: str, fullname: str) -> None:
        image = self.temporaries.pop(reference)
        if fullname in self.names:
            await self.untag(fullname)
        self.by_id[image.image_id] = image
        self.names[fullname] = replace(image, fullname=fullname)

    async def discard(self, reference: str) -> None:
        self.temporaries.pop(reference, None)

    async def sweep(self) -> None:
        self.temporaries.clear()

    async def keep(self, image_id: str) -> None:
        if image_id not in self.by_id:
            raise CommandFailed(f"no image {image_id}")
        self.kept.add(image_id)

    async def release(self, image_id: str) -> None:
        self.kept.discard(image_id)


@implementer(IContainers)
class FakeContainers:
    """Containers whose file system is a dict; scripts are those of the tests.

    `echo X > F` writes, `cat F` reads, `exit N` fails; `answers` gives the output of
    other scripts by their first word.
    """

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.running: dict[str, tuple[StoredImage, dict[str, bytes]]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.events: list[str] = []
        self.answers: dict[str, bytes] = {}
        self.in_memory: list[str] = []
        self.committing: Deferred[None] | None = None
        self.removing: Deferred[None] | None = None
        self._count = 0

    async def start(self, image: StoredImage, options: ContainerOptions) -> str:
        self._count += 1
        name = f"walt-session-{self._count:08x}"
        self.running[name] = (image, dict(self.files.get(image.image_id, {})))
        self.events.append(f"start {image.fullname} {options.init}")
        return name

    def command(self, container: str, argv: Sequence[str], *, terminal: bool) -> list[str]:
        return ["exec", *(["tty"] if terminal else []), container, *argv]

    def script(self, script: str) -> list[str]:
        return ["sh", "-c", script]

    async def run(self, container: str, script: str, *, input_fd: int | None = None) -> bytes:
        if container not in self.running or script.startswith("exit"):
            raise CommandFailed(f"{container}: {script}")
        for start, answer in self.answers.items():
            if script.startswith(start):
                return answer
        files, output = self.running[container][1], b""
        for part in script.split("; "):
            words = part.split()
            if words[0] == "cat":
                output += files[words[1]]
            elif len(words) == 4:
                files[words[3]] = f"{words[1]}\n".encode()
            elif words[0] == "echo":
                output += f"{words[1]}\n".encode()
        return output

    async def unpack(self, container: str, input_fd: int) -> list[str]:
        if container not in self.running:
            raise CommandFailed(f"no container {container}")
        self.events.append("unpack")
        return []

    async def volatile(self, container: str) -> list[str]:
        return self.in_memory

    async def freeze(self, container: str) -> None:
        self.events.append("freeze")

    async def commit(self, container: str, fullname: str, requester: IRequester) -> None:
        if container not in self.running:
            raise CommandFailed(f"no container {container}")
        if self.committing is not None:
            await self.committing
        base, files = self.running[container]
        self._count += 1
        image = replace(
            base, fullname=fullname, image_id=f"{self._count:064x}", layers=("l/N", *base.layers)
        )
        self.files[image.image_id] = dict(files)
        self.store.by_id[image.image_id] = image
        self.store.names[fullname] = image
        self.events.append(f"commit {fullname}")

    async def remove(self, container: str) -> None:
        gate, self.removing = self.removing, None
        if gate is not None:
            await gate
        if self.running.pop(container, None) is not None:
            self.events.append("remove")

    async def sweep(self) -> None:
        self.running.clear()


@implementer(IImageBuilder)
class FakeBuilder:
    """Builds below `places`; an image is made when its command is asked for.

    It is that of the FROM line, with one layer more; nothing is fetched.
    """

    warning: str | None = None

    def __init__(self, store: FakeStore, places: Path) -> None:
        self._store = store
        self._places = places
        self._count = 0

    def _image(self, base: StoredImage, layers: tuple[str, ...], reference: str) -> None:
        self._count += 1
        image = replace(base, fullname="", image_id=f"{0xb << 40 | self._count:064x}",
                        layers=layers)
        self._store.by_id[image.image_id] = image
        self._store.temporaries[reference] = image

    def open(self) -> Path:
        self._count += 1
        place = self._places / str(self._count)
        place.mkdir(parents=True)
        return place

    async def fetch_command(self, place: Path, url: str, *, progress: bool) -> list[str]:
        if not url.startswith(("git://", "http://", "https://", "ssh://")):
            raise Invalid("not the address of a git repository")
        options = ["--progress"] if progress else []
        return ["git", "clone", *options, "--", url, str(place / "content")]

    def left_out(self, place: Path) -> str | None:
        return "submodules" if (place / "content" / ".gitmodules").exists() else None

    async def unpack(self, place: Path, archive: Path) -> None:
        build_context.unpack(
            {"archive": str(archive), "directory": str(place / "content")}, lambda text: None
        )
        archive.unlink()

    async def command(
        self, place: Path, subdir: str, user: str, reference: str, known: Collection[str]
    ) -> list[str]:
        if ".." in subdir.split("/"):
            raise Invalid("a sub-directory is relative, without `..`")
        context = place / "content"
        made = recipes.prepare(context / subdir.strip("/"), context, user, (), known)
        (line,) = [one for one in made.splitlines() if one.startswith("FROM ")]
        base = self._store.names[f"{line.split()[1].removeprefix('docker.io/')}:latest"]
        self._image(base, ("l/N", *base.layers), reference)
        return ["true"]

    async def squash(
        self, image: StoredImage, reference: str, requester: IRequester
    ) -> None:
        if image.image_id not in self._store.by_id:
            raise CommandFailed(f"no image {image.image_id}")
        requester.progress("squashing")
        self._image(image, image.layers[:1], reference)

    async def close(self, place: Path) -> None:
        shutil.rmtree(place)

    async def sweep(self) -> None:
        shutil.rmtree(self._places, ignore_errors=True)


@implementer(IImageUsers)
class FakeImageUsers:
    """Nodes in a dict, by image; those followed in `followed`."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, str]] = {}
        self.followed: list[str] = []

    def names(self, fullname: str) -> list[str]:
        return sorted(self.nodes.get(fullname, {}))

    def models(self, fullname: str) -> set[str]:
        return set(self.nodes.get(fullname, {}).values())

    async def follow(self, fullname: str, requester: IRequester) -> bool:
        self.followed.append(fullname)
        return True


@implementer(IImageCatalog)
class FakeCatalog:
    """Names and ids in a dict; `puts` are all that were recorded, by whom."""

    def __init__(self, *names: str) -> None:
        self.ids: dict[str, str | None] = dict.fromkeys(names)
        self.puts: list[tuple[str, str, str | None]] = []

    @property
    def names(self) -> set[str]:
        return set(self.ids)

    async def known(self) -> Mapping[str, str | None]:
        return dict(self.ids)

    async def put(self, fullname: str, image_id: str) -> None:
        if self.ids.get(fullname) != image_id:
            self.ids[fullname] = image_id
            self.puts.append((fullname, image_id, acting.get()))

    async def remove(self, fullname: str) -> None:
        self.ids.pop(fullname, None)


@implementer(IImageMounter)
class FakeMounter:
    """Mounts noted in `events`; ids in `broken` fail."""

    def __init__(self, events: list[str] | None = None) -> None:
        self.events = [] if events is None else events
        self.now: set[str] = set()
        self.broken: set[str] = set()
        self.models = frozenset({"pc-x86-64", "pc-x86-32", "rpi-3-b"})

    def path(self, image_id: str) -> Path:
        return Path("/images") / image_id / "fs"

    async def mount(self, image: StoredImage) -> frozenset[str]:
        self.events.append(f"mount {image.image_id[:2]}")
        if image.image_id in self.broken:
            raise CommandFailed("cannot mount")
        self.now.add(image.image_id)
        return self.models

    async def unmount(self, image_id: str) -> None:
        self.events.append(f"unmount {image_id[:2]}")
        if image_id in self.broken:
            raise CommandFailed("cannot unmount")
        self.now.discard(image_id)

    async def mounted(self) -> set[str]:
        return set(self.now)


@implementer(INfsExporter)
class FakeExporter:
    """Plans in a list; `failing` tells why nodes (MACs) cannot have their exports."""

    def __init__(self) -> None:
        self.plans: list[ExportPlan] = []
        self.failing: dict[str, str] = {}
        self.given_up = False

    async def apply(self, plan: ExportPlan) -> dict[str, str]:
        if not self.plans or self.plans[-1] != plan:
            self.plans.append(plan)
        for node in plan.nodes:
            if node.persist is not None:
                node.persist.mkdir(parents=True, exist_ok=True)
        return {
            node.mac: self.failing[node.mac] for node in plan.nodes if node.mac in self.failing
        }

    def give_up(self) -> None:
        self.given_up = True

    async def withdraw(self) -> None:
        self.plans.clear()


@implementer(IDefaultImages)
class FakeDefaults:
    """Gets images by `download`, which puts them into the store; without it there are none."""

    def __init__(
        self, images: ImageService, download: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        self._images = images
        self._download = download

    async def obtain(self, fullname: str) -> None:
        await self._images.refresh()
        if self._images.has(fullname):
            return
        if self._download is None:
            raise Unavailable(f"Could not download {fullname}: no registry configured")
        await self._download(fullname)
        await self._images.refresh()


@implementer(IImageArchiver)
class FakeArchiver:
    """An archive tells the ids of its images, and their labels."""

    def __init__(self, store: FakeStore, places: Path) -> None:
        self._store = store
        self._places = places

    def open(self) -> Path:
        self._places.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self._places))

    async def pack(
        self, place: Path, images: Mapping[str, StoredImage], requester: IRequester
    ) -> list[str]:
        for image_id in images:
            if image_id not in self._store.by_id:
                raise CommandFailed(f"no image {image_id}")
        requester.progress("Reading")
        packed = {one: dict(self._store.by_id[one].labels) for one in images}
        (place / "packed").write_text(json.dumps(packed))
        return ["cat", str(place / "packed")]

    async def unpack(self, place: Path, archive: Path, images: Collection[str]) -> None:
        try:
            found = json.loads(archive.read_text())
        except ValueError:
            raise Invalid("the archive of images is refused") from None
        missing = set(images) - found.keys()
        if missing:
            raise Invalid(f"the archive of images has no image {min(missing)}")
        archive.rename(place / "unpacked")

    async def fetch(
        self, place: Path, image_id: str, reference: str, requester: IRequester
    ) -> None:
        found = json.loads((place / "unpacked").read_text())
        self._store.temporaries[reference] = StoredImage("", image_id, labels=found[image_id])

    async def close(self, place: Path) -> None:
        shutil.rmtree(place)


@implementer(IImageSource, IRegistry)
class FakeRegistry:
    """A registry in a dict; `account` is the one it knows, None for no accounts."""

    def __init__(
        self, store: FakeStore, label: str = "lab", account: Credentials | None = None
    ) -> None:
        self.info = RegistryInfo(label, f"registry {label}", authenticated=account is not None)
        self._store = store
        self._account = account
        self.images: dict[str, StoredImage] = {}
        self.error: Exception | None = None

    def _check(self, credentials: Credentials | None) -> None:
        if self.error is not None:
            raise self.error
        if self._account is not None and credentials != self._account:
            raise Denied("it refuses access")

    def _get(self, fullname: str) -> StoredImage:
        if fullname not in self.images:
            raise NotFound("manifest unknown")
        return self.images[fullname]

    async def inspect(self, fullname: str, credentials: Credentials | None) -> RemoteImage:
        self._check(credentials)
        image = self._get(fullname)
        return RemoteImage(fullname, image.labels, image.created_ts)

    async def search(self, credentials: Credentials | None, limit: float) -> list[RemoteImage]:
        self._check(credentials)
        return [
            RemoteImage(name, image.labels, image.created_ts)
            for name, image in self.images.items() if image.labels.get(MODELS_LABEL)
        ]

    async def search_user(
        self, user: str, credentials: Credentials | None, limit: float
    ) -> list[RemoteImage]:
        found = await self.search(credentials, limit)
        return [one for one in found if one.fullname.startswith(f"{user}/")]

    async def pull(
        self, fullname: str, reference: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        self._check(credentials)
        image = self._get(fullname)
        self._store.by_id[image.image_id] = image
        self._store.temporaries[reference] = image

    async def push(
        self, fullname: str, remote: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        self._check(credentials)
        self.images[remote] = self._store.names[fullname]

    async def push_index(
        self, remote: str, label: str, value: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        self._check(credentials)
        self.images[remote] = StoredImage(remote, "9" * 64, labels={label: value})

    async def stored_credentials(self) -> Credentials | None:
        return None

    async def login(self, credentials: Credentials) -> None:
        self._check(credentials)
