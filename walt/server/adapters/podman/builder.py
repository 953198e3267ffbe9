"""Builds: git, podman build and buildah, contained (spec server §4.6, §5.10).

RUN instructions get a container, and a network that reaches the outside alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import CommandFailed, Invalid, NotFound, Unavailable, in_words
from walt.common.names import short_image_name
from walt.server.adapters.podman.containers import Engine
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.progress import run_told
from walt.server.adapters.podman.removal import remove_containers
from walt.server.adapters.podman.repositories import Repositories
from walt.server.adapters.podman.statuses import IS_INVALID, IS_NOT_THERE
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.domain.images.interfaces import IImageBuilder
from walt.server.domain.images.model import StoredImage
from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.workers import WorkerPool

_log = Logger()

PATIENCE = 4 * 3600.0  # seconds
QUICK = 120.0
LONG_JOB = 3600.0  # of a worker, in silence
MAX_SUBDIR = 2000
_VERSION = re.compile(r"version (\d+)\.(\d+)\.(\d+)")
# Where `FROM dir:/…` and its like would read images from files and daemons of the server
# (containers-transports(5)).
REFUSED = (
    "dir", "docker-archive", "docker-daemon", "oci", "oci-archive", "ostree", "sif", "tarball",
)
POLICIES = (Path("/root/.config/containers/policy.json"), Path("/etc/containers/policy.json"))
# Names that podman and buildah give to the containers of builds.
_WORKING = re.compile(r"^\S+-working-container(?:-\d+)?$", re.MULTILINE)

NARROW = Path(__file__).with_name("narrow.py")
PACKAGE = Path(__file__).parents[3]  # walt: outside.py is a part of it
# What podman has of its own, whatever its storage is: locks and sockets.
PODMAN_PLACES = ("/run/libpod", "/run/lock", "/run/runc", "/run/crun", "/run/containers")


def contained(argv: Sequence[str]) -> list[str]:
    """Return a vector whose program ends with all its descendants when it is killed.

    Its processes live in a process-id namespace of their own (unshare(1)), and
    their mounts vanish with them.
    """
    return ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--", *argv]


@implementer(IImageBuilder)
class PodmanBuilder:
    """Builds below `places`; `private`: the storage is the server's own."""

    def __init__(
        self, runner: ProcessRunner, workers: WorkerPool, storage: Storage, engine: Engine,
        surroundings: Surroundings, places: Path, repositories: Repositories,
    ) -> None:
        self._runner = runner
        self._workers = workers
        self._storage = storage
        self._engine = engine
        self._surroundings = surroundings
        self.warning = surroundings.warning
        self._places = places
        self._repositories = repositories
        self._open: set[Path] = set()
        self._version: tuple[int, ...] = ()  # until podman told it

    def open(self) -> Path:
        """Make a directory for one build."""
        place = self._places / secrets.token_hex(8)
        (place / "tmp").mkdir(parents=True, mode=0o700)
        self._places.chmod(0o700)
        self._open.add(place)
        return place

    async def fetch_command(self, place: Path, url: str, *, progress: bool) -> list[str]:
        """Return the git command; see IImageBuilder. Raises Invalid, CommandFailed."""
        return contained(await self._repositories.command(
            url, place / "content", place / "tmp", progress=progress
        ))

    def left_out(self, place: Path) -> str | None:
        """Tell of submodules; see IImageBuilder.

        They may be anywhere, in networks that nobody shall read too.
        """
        if os.path.lexists(place / "content" / ".gitmodules"):
            return "The submodules of this repository are not fetched: their directories are empty."
        return None

    async def unpack(self, place: Path, archive: Path) -> None:
        """Unpack an archive; see IImageBuilder."""
        await self._workers.call(
            "build_context:unpack",
            {"archive": str(archive), "directory": str(place / "content")}, silence=LONG_JOB,
        )
        archive.unlink()

    async def command(
        self, place: Path, subdir: str, user: str, reference: str, known: Collection[str]
    ) -> list[str]:
        """Return the build command; see IImageBuilder."""
        context = _inside(place / "content", subdir)
        recipe, ignored = place / "recipe", place / "ignored"
        ignored.touch()  # nothing more than what is gone already
        names = place / "images"
        names.write_text("\n".join(known))
        await self._prepare_recipe(context, place / "content", user, names, recipe)
        policy = place / "policy.json"
        policy.write_text(json.dumps(registries_only(_policy())))
        building = self._storage.podman(
            # systemd would be told process ids of a namespace that it is not in.
            *self._engine.global_options(), "--cgroup-manager", "cgroupfs",
            "build", "--format", "docker",
            *self._surroundings.options(), "--layers=false", "--force-rm",
            *self._engine.limit_options(), "--runtime-flag", f"root={place / 'oci'}",
            "--signature-policy", str(policy),
            "--file", str(recipe), "--ignorefile", str(ignored), "--tag", reference, "--",
            str(context),
        )
        return contained([
            *self._narrowed(place),
            *self._surroundings.around(["env", f"TMPDIR={place / 'tmp'}", *building]),
        ])

    def _narrowed(self, place: Path) -> list[str]:
        """Return the words before a program that shall see little but the storage and a place.

        podman follows links of the trees that it builds, as root, in ways that its versions differ
        in; and what an image brings for who builds on it (ONBUILD) is in no recipe.
        """
        view = {
            "read": [sys.prefix, sys.base_prefix, str(PACKAGE)],
            "write": [
                *map(str, self._storage.places()), str(place),
                *(path for path in PODMAN_PLACES if Path(path).exists()),
            ],
        }
        root = place / "root"
        root.mkdir(exist_ok=True)
        return [sys.executable, "-I", str(NARROW), json.dumps(view), str(root)]

    async def _prepare_recipe(
        self, context: Path, root: Path, user: str, known: Path, target: Path
    ) -> None:
        version = ".".join(map(str, self._version))
        done = await self._runner.run(
            [sys.executable, "-m", "walt.server.workers.recipes", str(context), str(root), user,
             version, str(known), str(target)],
            timeout=QUICK, check=False,
        )
        kinds = {IS_INVALID: Invalid, IS_NOT_THERE: NotFound}
        if done.status != 0:
            raise kinds.get(done.status, CommandFailed)(done.last_words())

    async def squash(
        self, image: StoredImage, reference: str, requester: IRequester
    ) -> None:
        """Make a copy with a single layer; see IImageBuilder."""
        name = f"walt-squash-{secrets.token_hex(4)}-working-container"
        place = self.open()
        what = f"Squashing {short_image_name(image.fullname)}"
        count = len(image.layers)
        requester.progress(f"{what}: {count} layer{'' if count == 1 else 's'}")
        buildah = ["buildah", *self._storage.options()]
        try:
            await self._runner.run(
                [*buildah, "from", "--pull-never", "--name", name, image.image_id],
                timeout=QUICK, network="host",
            )
            await run_told(
                self._runner,
                [*buildah, "commit", "--rm", "--squash", "--format", "docker", name, reference],
                place / "tmp", what, requester, timeout=PATIENCE,
            )
        finally:
            await self.close(place)

    async def close(self, place: Path) -> None:
        """Remove what a build left; see IImageBuilder."""
        self._open.discard(place)
        groups = control_groups(place)
        await self._remove(place)
        if not self._open:
            await self._remove_containers()
        _remove_empty(groups)

    async def _remove(self, directory: Path) -> None:
        await self._workers.call(
            "build_context:remove", {"directory": str(directory)}, silence=LONG_JOB
        )

    async def _remove_containers(self) -> None:
        """Remove the containers of builds that were killed: no build is running."""
        if self._storage.root is None:
            return  # those in the system's storage may be a person's
        listed = await self._runner.run(
            self._storage.podman("ps", "--all", "--external", "--format", "{{.Names}}"),
            timeout=QUICK, network="host",
        )
        names = _WORKING.findall(listed.stdout.decode())
        if names:
            try:
                await remove_containers(self._runner, self._storage, (), names)
            except CommandFailed as error:
                _log.warn("containers of builds are left: {error}", error=str(error))

    async def sweep(self) -> None:
        """Remove what the builds of a killed server left; find out which podman this is."""
        told = await self._runner.run(["podman", "--version"], timeout=QUICK, check=False)
        found = _VERSION.search(told.stdout.decode(errors="replace"))
        self._version = tuple(map(int, found.groups())) if found is not None else ()
        if self._places.exists() and any(self._places.iterdir()):
            groups = [group for place in self._places.iterdir() for group in control_groups(place)]
            await self._remove(self._places)
            await self._remove_containers()
            _remove_empty(groups)


def registries_only(policy: Any) -> dict[str, Any]:
    """Return a policy (containers-policy.json(5)) that takes images of registries and of our
    own storage as `policy` does, and no others.
    """
    made = dict(policy) if isinstance(policy, dict) else {}
    made.setdefault("default", [{"type": "insecureAcceptAnything"}])
    transports = made.get("transports")
    made["transports"] = {
        **(transports if isinstance(transports, dict) else {}),
        **{name: {"": [{"type": "reject"}]} for name in REFUSED},
    }
    return made


def _policy() -> Any:
    """Return the policy of this machine: the first that is there."""
    for path in POLICIES:
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise Unavailable(f"{path} of the server cannot be read: {in_words(error)}") from None
    return {}


def control_groups(
    place: Path, own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup"),
) -> list[Path]:
    """Return where the control groups (cgroups(7)) of a build's containers may be.

    They are named after the directories of containers, and stay when the build is killed.
    """
    names = [f"buildah-{directory.name}" for directory in (place / "tmp").glob("buildah*")]
    found = []
    for line in own.read_text().splitlines() if names else ():
        _, controllers, path = line.split(":", 2)
        # Version 2 is mounted alone, or beside version 1.
        hierarchies = [controllers.removeprefix("name=")] if controllers else ["unified", ""]
        found += [
            root / hierarchy / parent.strip("/") / name
            for hierarchy in hierarchies for parent in dict.fromkeys((path, "/")) for name in names
        ]
    return found


def _remove_empty(groups: Sequence[Path]) -> None:
    for group in groups:
        with contextlib.suppress(OSError):  # it is not there, or not over
            group.rmdir()


def _inside(root: Path, subdir: str) -> Path:
    """Return a directory below `root`, reached without leaving it."""
    wanted = root / subdir.strip("/")
    if "\0" in subdir or ".." in subdir.split("/") or len(subdir) > MAX_SUBDIR:
        raise Invalid("a sub-directory is relative, without `..`, and not longer than a path")
    resolved = Path(os.path.realpath(wanted))
    if not os.path.isdir(resolved) or not resolved.is_relative_to(os.path.realpath(root)):
        raise NotFound(f"there is no directory {subdir!r} in this repository")
    return resolved
