"""Containers of images: podman run, exec and commit (spec server §4.5, §5.8)."""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import CommandFailed
from walt.common.names import short_image_name
from walt.server.adapters.podman.furnish import gate
from walt.server.adapters.podman.lasting import Settling
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.outside import RESOLVER
from walt.server.adapters.podman.progress import run_told, working_directory
from walt.server.adapters.podman.removal import remove_containers, remove_images
from walt.server.adapters.podman.store import REGISTRY, TEMPORARY
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.domain.images.interfaces import IContainers
from walt.server.domain.images.model import ContainerOptions, StoredImage
from walt.server.domain.requester import IRequester
from walt.server.runtime.child import process_start
from walt.server.runtime.process import DEFAULT_PATH, ProcessRunner

_log = Logger()

PREFIX = "walt-session-"
TAGS = "localhost/walt/sessions"  # tags that keep the images of containers
HOST_NAME = "image-shell"
FILES = ("pid", "cpuinfo", "resolver")  # of each container, in a directory of ours
# A static busybox of the server, so that images of any content and of any
# architecture can be read and written; podman mounts /run on the fly.
BUSYBOX = "/bin/busybox"
HELPER = "/run/busybox-walt"
# File systems in memory, which no image has. What they hold beside what a person put there:
# our busybox, files of podman, and locks and sockets of nobody.
IN_MEMORY = ("/run", "/dev/shm")  # noqa: S108 (names in a container)
OF_PODMAN = (HELPER, "/run/.containerenv")
# What unpacking a tree of a container needs of root, the way into it included.
UNPACKING = "+chown,+dac_override,+fowner,+fsetid,+setfcap,+sys_chroot,+sys_ptrace"
MOST_VOLATILE = 1 << 16  # bytes of names
IDLE = f"trap exit TERM; while {HELPER} sleep 100000; do :; done"
# What programs of a session get, beside the environment of the image.
ENVIRONMENT = {
    "HOME": "/root", "HOSTNAME": HOST_NAME, "PATH": DEFAULT_PATH, "container": "podman",
}
FURNISH = Path(__file__).with_name("furnish.py")
DIRECTORIES = ("dev", "proc", "sys")  # what a runtime fills
QUICK = 120.0  # seconds
FOREVER = 1e9
# Holds a network, whose namespace is that of the process it names.
KEEP = f"echo $$; exec sleep {FOREVER:.0f}"
SCRIPT_PATIENCE = COMMIT_PATIENCE = 3600.0
# podman asks for more, and fails where limits cannot be raised; it lowers its own
# limit of processes to 32768.
LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 1048576), "nproc": (resource.RLIMIT_NPROC, 32768)}


class Engine(NamedTuple):
    """How containers are run: OCI `runtime` (None: podman's default) and `ulimits`."""

    runtime: str | None
    ulimits: tuple[str, ...]

    def global_options(self) -> list[str]:
        """Return the options of podman itself."""
        return ["--runtime", self.runtime] if self.runtime else []

    def limit_options(self) -> list[str]:
        """Return the options of `run` and `build`."""
        return [word for limit in self.ulimits for word in ("--ulimit", limit)]


def choose_engine(
    runtime: str | None, ulimits: Sequence[str], *, cgroup2: bool, has_runc: bool,
) -> Engine:
    """Return the engine of this machine, settings first.

    crun refuses the hybrid control groups of a machine (or container) without
    cgroup 2, runc takes them; limits above our own cannot be given.
    """
    if runtime is None and not cgroup2 and has_runc:
        runtime = "runc"
    return Engine(runtime, tuple(ulimits) or tuple(_own_limits()))


def _own_limits() -> list[str]:
    limits = []
    for name, (number, wanted) in LIMITS.items():
        hard = resource.getrlimit(number)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        limits.append(f"{name}={value}:{value}")
    return limits


def has_cgroup2() -> bool:
    """Tell whether this machine has unified control groups only."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


class _Config(NamedTuple):
    """What an image made of a container must have again: `changes` of a commit, `env`."""

    changes: tuple[str, ...]
    env: tuple[str, ...]
    user: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Config:
        """Read the configuration of an image."""
        user, volumes = config.get("User") or "", config.get("Volumes") or {}
        return cls(
            (
                f"ENTRYPOINT {json.dumps(config.get('Entrypoint') or [])}",
                f"CMD {json.dumps(config.get('Cmd') or [])}",
                f"WORKDIR {config.get('WorkingDir') or '/'}",
                *([f"USER {user}"] if user else []),
                *([f"VOLUME {json.dumps(sorted(volumes))}"] if volumes else []),
            ),
            tuple(variable for variable in config.get("Env") or () if "=" in variable),
            user,
        )

    def missing(self) -> list[str]:
        """Return the variables of sessions that the image does not set itself."""
        own = {variable.partition("=")[0] for variable in self.env}
        return [f"{name}={value}" for name, value in ENVIRONMENT.items() if name not in own]


class _Network(NamedTuple):
    """The process whose network a container has; `over` fires when it has ended."""

    pid: int
    over: Deferred[None]


@implementer(IContainers)
class PodmanContainers:
    """Containers in the server's storage, named `walt-session-…`.

    `scratch` is a directory for files that containers see, `layers` one on a disk for
    layers on their way.
    """

    def __init__(
        self, runner: ProcessRunner, storage: Storage, engine: Engine, scratch: Path,
        layers: Path, surroundings: Surroundings,
    ) -> None:
        self._runner = runner
        self._storage = storage
        self._engine = engine
        self._scratch = scratch
        self._layers = layers
        self._surroundings = surroundings
        self._settling = Settling(runner, storage)
        self._configs: dict[str, _Config] = {}
        self._networks: dict[str, _Network] = {}
        self._born: dict[str, int] = {}  # start times of first processes (process_start)

    def _words(self, *words: str) -> list[str]:
        return self._storage.podman(*self._engine.global_options(), *words)

    async def _podman(self, *words: str, timeout: float = QUICK, check: bool = True) -> bytes:
        result = await self._runner.run(
            self._words(*words), timeout=timeout, network="host", check=check
        )
        return result.stdout

    async def start(self, image: StoredImage, options: ContainerOptions) -> str:
        """Start a container of an image; see IContainers."""
        name = PREFIX + secrets.token_hex(4)
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._configs[name] = await self._image_config(image)
        await self._podman("image", "tag", image.image_id, _tag(name))
        try:
            network = ["--network", "none"]
            if options.outside:
                network = await self._connect(name)
            made = await self._podman(*self._create_words(name, image, options, network))
            await self._check_tree(name)
            await self._podman("start", name)
            await self._furnish(name, made.decode().split()[-1], options)
        except BaseException:
            await self.remove(name)
            raise
        return name

    async def _image_config(self, image: StoredImage) -> _Config:
        (item,) = json.loads(await self._podman("image", "inspect", "--", image.image_id))
        return _Config.of(item.get("Config") or {})

    async def _connect(self, name: str) -> list[str]:
        """Make the network of a container; return the options that join it."""
        found: Deferred[int] = Deferred()

        def line(text: str) -> None:
            if text.isdecimal() and not found.called:
                found.callback(int(text))

        async def hold() -> None:
            result = await self._runner.run(
                self._surroundings.around(["sh", "-c", KEEP]), timeout=FOREVER, check=False,
                network="host", on_line=line,
            )
            if not found.called:
                found.errback(CommandFailed(result.last_words()))

        keeper = Deferred.fromCoroutine(hold())
        keeper.addErrback(lambda failure: None if found.called else found.errback(failure))
        pid = await found
        self._networks[name] = _Network(pid, keeper)
        # A file of the server: what is written there would not be in the image.
        names = self._written(name, "resolver", f"nameserver {RESOLVER}\n".encode())
        return [
            "--network", f"ns:/proc/{pid}/ns/net", "--volume", f"{names}:/etc/resolv.conf:ro",
        ]

    async def _disconnect(self, name: str) -> None:
        network = self._networks.pop(name, None)
        if network is not None and not network.over.called:
            os.kill(network.pid, signal.SIGKILL)
            await network.over

    def _create_words(
        self, name: str, image: StoredImage, options: ContainerOptions, network: list[str]
    ) -> list[str]:
        words = [
            "create", "--name", name, *network, "--uts", "private",
            # One that the image names would be made, where its links lead.
            "--workdir", "/",
            "--pidfile", str(self._file(name, "pid")),
            "--no-hosts",
            # What a volume of the image holds is part of it, too.
            "--image-volume", "ignore", "--pull", "never", "--log-driver", "none",
            *self._engine.limit_options(),
            # podman would load a profile of its own first: the server has given up that right.
            "--security-opt", "apparmor=unconfined",
            # A commit writes down the environment: it is that of the image alone.
            "--unsetenv-all", *_env(self._configs[name].env),
        ]
        if self._configs[name].user:
            words += ["--user", "0:0"]
        if options.cpuinfo is not None:
            copy = self._written(name, "cpuinfo", options.cpuinfo)
            words += ["--volume", f"{copy}:/proc/cpuinfo:ro"]
        if options.init is None:
            words += ["--tmpfs", "/run", "--entrypoint", json.dumps([HELPER, "sh", "-c", IDLE])]
        else:
            words += [
                "--systemd", "always", "--tmpfs", "/run/rpc_pipefs",
                "--entrypoint",
                # What the image brings runs when the container is furnished, and no earlier.
                json.dumps(gate(
                    HELPER, HOST_NAME, [*self._configs[name].missing(), options.init]
                )),
            ]
        words += ["--mount", f"type=bind,source={BUSYBOX},destination={HELPER},ro"]
        return [*words, image.image_id]

    async def _check_tree(self, name: str) -> None:
        """Raise CommandFailed for a tree in which the runtime would leave the tree.

        OCI runtimes make links below /dev, as root of the server, wherever /dev leads to.
        """
        answer = await self._podman("mount", name)
        tree = Path(answer.decode().rstrip("\n"))
        for place in DIRECTORIES:
            if (tree / place).is_symlink():
                raise CommandFailed(
                    f"/{place} of this image is a link: no container can be made of it. Make it"
                    " a directory (on a node: rm, mkdir, walt node save)"
                )

    async def _furnish(self, name: str, identity: str, options: ContainerOptions) -> None:
        """Name the host inside, and show files of the image that podman replaces by its own.

        With --hostname, podman would commit HOSTNAME as well.
        """
        names = ["hostname", *([] if options.outside else ["resolv.conf"])]
        pid = int(self._file(name, "pid").read_text())
        self._born[name] = process_start(pid)
        await self._runner.run(
            [sys.executable, "-I", str(FURNISH), str(pid), HOST_NAME,
             *(f"{identity}/userdata/{file}" for file in names)],
        )

    def _file(self, container: str, kind: str) -> Path:
        return self._scratch / f"{container}.{kind}"

    def _written(self, container: str, kind: str, data: bytes) -> Path:
        """Return a file with this content, removed with the container."""
        path = self._file(container, kind)
        path.write_bytes(data)
        return path

    def command(self, container: str, argv: Sequence[str], *, terminal: bool) -> list[str]:
        """Return the vector that runs a command in a container; see IContainers."""
        flags = ["--interactive", *(["--tty", "--env", "TERM"] if terminal else [])]
        if container in self._configs:
            flags += _env(self._configs[container].missing())
        return self._words("exec", *flags, "--workdir", "/", container, *argv)

    def script(self, script: str) -> list[str]:
        """Return the command that runs a script with the tools of our busybox."""
        return [HELPER, "sh", "-c", script]

    async def run(
        self, container: str, script: str, *, input_fd: int | None = None
    ) -> bytes:
        """Run a script in a container; see IContainers."""
        result = await self._runner.run(
            self.command(container, self.script(script), terminal=False),
            timeout=SCRIPT_PATIENCE, network="host", input_fd=input_fd,
        )
        return result.stdout

    async def volatile(self, container: str) -> list[str]:
        """Return the files that a commit leaves out; see IContainers."""
        places = " ".join(IN_MEMORY)
        known = " ".join(f"! -path {path}" for path in OF_PODMAN)
        answer = await self.run(
            container,
            f"find {places} -xdev ! -type d ! -type s {known} -print0 2>/dev/null"
            f" | head -c {MOST_VOLATILE}",
        )
        return [word.decode(errors="replace") for word in answer.split(b"\0") if word]

    async def unpack(self, container: str, input_fd: int) -> list[str]:
        """Put what changed on a node into the tree of a container; see IContainers."""
        pid = int(self._file(container, "pid").read_text())
        if process_start(pid) != self._born.get(container):
            # Its number may be that of another process, whose root is the server's.
            raise CommandFailed("the container of this image has ended")
        result = await self._runner.run(
            ["setpriv", "--no-new-privs", f"--bounding-set=-all,{UNPACKING}", "--", sys.executable,
             "-m", "walt.server.workers.unpack_tree", f"/proc/{pid}/root"],
            timeout=SCRIPT_PATIENCE, input_fd=input_fd,
        )
        return result.stdout.decode(errors="replace").splitlines()

    async def freeze(self, container: str) -> None:
        """End every program of a container."""
        await self._podman("kill", "--signal", "KILL", container, check=False)

    async def commit(self, container: str, fullname: str, requester: IRequester) -> None:
        """Make an image of a container; see IContainers."""
        config = self._configs.get(container)
        changes = [] if config is None else [
            word for change in config.changes for word in ("--change", change)
        ]
        # The name leads to the old image until the disk has the new one.
        reference = f"{TEMPORARY}:{secrets.token_hex(8)}"
        try:
            with working_directory(self._layers) as place:
                await run_told(
                    self._runner,
                    self._words("commit", "--format", "docker", *changes, container, reference),
                    place, f"Saving image {short_image_name(fullname)}", requester,
                    timeout=COMMIT_PATIENCE,
                )
            await self._settling.before()
            await self._podman("image", "tag", reference, REGISTRY + fullname)
        finally:
            await remove_images(self._runner, self._storage, reference)
        await self._settling.after(f"saving the image {fullname}")

    async def remove(self, container: str) -> None:
        """Remove a container and what kept its image."""
        self._configs.pop(container, None)
        self._born.pop(container, None)
        await remove_containers(
            self._runner, self._storage, self._engine.global_options(), [container]
        )
        await self._disconnect(container)
        await remove_images(self._runner, self._storage, _tag(container))
        for kind in FILES:
            self._file(container, kind).unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Remove containers and tags that a killed server left."""
        storage = self._storage
        if not storage.may_hold("images", TAGS) and not storage.may_hold("containers", PREFIX):
            return
        listed = await self._podman("ps", "--all", "--format", "{{.Names}}")
        names = set(re.findall(rf"^{PREFIX}[0-9a-f]{{8}}$", listed.decode(), re.MULTILINE))
        tagged = await self._podman(
            "image", "ls", "--filter", f"reference={TAGS}", "--format", "{{.Tag}}", check=False
        )
        names |= set(re.findall(rf"^{PREFIX}[0-9a-f]{{8}}$", tagged.decode(), re.MULTILINE))
        for name in sorted(names):
            try:
                await self.remove(name)
            except CommandFailed as error:
                _log.warn("removing container {name}: {error}", name=name, error=str(error))


def _env(values: Iterable[str]) -> list[str]:
    return [word for value in values for word in ("--env", value)]


def _tag(container: str) -> str:
    return f"{TAGS}:{container}"
