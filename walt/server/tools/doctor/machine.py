"""Steps about the machine of the server: what it has, and what its own parts say."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import walt
from walt.common import ampbox
from walt.common.errors import Unavailable, in_words
from walt.common.mounts import is_mounted
from walt.server.adapters.archive.files import holder, lacks
from walt.server.adapters.nfs.choice import chosen
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.postgres.cluster import embedded_dsn
from walt.server.adapters.postgres.log_weeks import archived_files
from walt.server.assembly import confinement, preflight
from walt.server.assembly.base import archive_target
from walt.server.config.model import ServerConfig
from walt.server.runtime.watching import NoAnswer
from walt.server.tools.doctor import probes
from walt.server.tools.doctor.findings import Doubtful, Skipped, Step, Wrong
from walt.server.tools.doctor.outside import Site
from walt.server.tools.environment_file import variables
from walt.server.tools.setup.debian import CLASHING

LITTLE = 2 << 30  # bytes: room for one more image or two
FEW_FILES = 5000
NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
ANSWER = 10.0  # seconds that a command may take
LONG_ANSWER = 90.0  # seconds for what asks machines elsewhere, several times
SPARE = {"lldpd", "snmpd", "nbdkit", "ptpd", "ntp"}  # daemons without which nodes boot
PLATFORM_USER, DEFAULT = "waltplatform", "-default:latest"  # of images that nobody owns
RESTART = "systemctl restart walt-server (or start it as you do)"
YEAR = 366 * 86400


class Machine:
    """The steps; `config` is the server's, `site` where it is."""

    def __init__(self, config: ServerConfig, site: Site) -> None:
        self.config, self._site = config, site
        self.paths = config.paths
        self._rows: dict[str, Any] = {}

    def steps(self) -> list[Step]:
        """Return them in the order in which one needs the other."""
        return [
            Step("programs", self.programs), Step("clock", self.clock),
            *(Step(f"space {path}", partial(self.space, path))
              for path in (self.paths.state, self.paths.runtime)),
            Step("AppArmor", self.apparmor), Step("services of Debian", self.debian_services),
            Step("server", self.server), Step("daemons", self.daemons),
            Step("database", self.database), Step("log archive", self.log_archive),
            Step("podman", self.podman),
            Step("default image", self.default_image),
            Step("images of nodes", self.node_images), Step("boot links", self.boot_links),
            Step("neighbours", self.neighbours),
        ]

    # -- what the machine has ------------------------------------------------

    def programs(self) -> str:
        """The programs that the server starts."""
        wanted = preflight.PROGRAMS | preflight.chosen_programs(self.config)
        if not chosen(
            self.config.services.nfs, isolated=self.config.namespace is not None
        ):
            wanted |= preflight.GANESHA_PROGRAMS
        missing = sorted({
            package for name, package in wanted.items() if preflight.find_program(name) is None
        })
        if missing:
            raise Wrong(f"missing: {' '.join(missing)}", f"apt-get install {' '.join(missing)}")
        return f"all {len(wanted)} are there"

    def clock(self) -> str:
        """The time: certificates and logs go by it, and nodes take it over."""
        now = time.time()
        installed = Path(walt.__file__).stat().st_mtime
        if now < installed - 86400:
            raise Wrong(
                f"it is {time.strftime('%Y-%m-%d %H:%M', time.localtime(now))} here, before this"
                " software was installed", "timedatectl set-ntp true, or set the clock",
            )
        if now > installed + 20 * YEAR:
            raise Wrong("it is decades after this software was installed", "set the clock")
        if Path("/run/systemd/system").is_dir():
            told = self._call(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
            if told.strip() == "no":
                raise Doubtful("the clock is not synchronised", "timedatectl set-ntp true")
        return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now))

    def space(self, path: Path) -> str:
        """Space and files of a file system, which can be written to."""
        try:
            found = os.statvfs(path)
        except FileNotFoundError:
            raise Wrong(f"{path} is not there", RESTART) from None
        if found.f_flag & os.ST_RDONLY:
            raise Wrong(f"{path} is read-only", "see dmesg; mount it read-write, check its disk")
        free = found.f_bavail * found.f_frsize
        if free < preflight.LEAST_FREE:
            raise Wrong(
                f"only {free >> 20} MiB are free at {path}",
                "walt image remove, logs.retention, or a larger disk",
            )
        if found.f_files and found.f_favail < FEW_FILES:
            raise Wrong(
                f"only {found.f_favail} more files can be made at {path}",
                "remove files there, or use a file system with more inodes",
            )
        if free < LITTLE and path == self.paths.state:
            raise Doubtful(
                f"only {free >> 20} MiB are free at {path}",
                "walt image remove, logs.retention, or a larger disk",
            )
        return f"{free >> 30} GiB free"

    def apparmor(self) -> str:
        """Whether AppArmor lets daemons work."""
        if not confinement.is_enforced():
            raise Skipped("this kernel confines no programs by it")
        problems = confinement.problems(self.paths)
        if problems:
            raise Wrong("; ".join(problems), "walt-server-apparmor, then restart the server")
        return "dhcpd, named and dhclient may use the directories of the server"

    def debian_services(self) -> str:
        """Whether services of Debian take ports of ours."""
        if not Path("/run/systemd/system").is_dir():
            raise Skipped("systemd does not run this machine")
        told = self._call(["systemctl", "is-active", "--", *CLASHING]).split("\n")
        active = [unit for unit, state in zip(CLASHING, told, strict=False) if state == "active"]
        if active and self.config.namespace is None:
            raise Wrong(f"{', '.join(active)} run, and take our ports", "walt-server-setup")
        return "none of those is active that would take our ports"

    # -- what the server says --------------------------------------------------

    def server(self) -> str:
        """Whether the server answers its users."""
        if not self.paths.rpc_socket.exists():
            raise Wrong(
                f"it does not run: {self.paths.rpc_socket} is not there",
                f"{RESTART}; its last lines say why it ended",
            )
        rows = self._walt("advanced", "services", "--json")
        self._rows["services"] = rows
        return "it answers"

    def _walt(self, *words: str) -> Any:
        """Return what a walt command prints as JSON. Raises Wrong."""
        argv = [str(Path(sys.executable).with_name("walt")), *words]
        environment = {**os.environ, "WALT_SERVER": f"unix:{self.paths.rpc_socket}"}
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=ANSWER,
                stdin=subprocess.DEVNULL, env=environment,
            )
        except subprocess.TimeoutExpired:
            raise Wrong(
                f"the server does not answer within {ANSWER:g} s", f"{RESTART}; keep its log"
            ) from None
        if done.returncode != 0:
            words_told = " / ".join(done.stderr.strip().splitlines()[:3])
            raise Wrong(f"walt {' '.join(words)}: {words_told}", RESTART)
        return json.loads(done.stdout)

    def _known(self, key: str) -> Any:
        """Return rows of the server, asked for once; skips when it did not answer before.

        By the web API, whose answers change nothing: a user who asks for images gets some.
        """
        if "services" not in self._rows:
            raise Skipped("the server does not answer")
        if key not in self._rows:
            address, port = str(self.config.server_ip), self.config.services.http_port
            try:
                text = self._site.from_server(
                    lambda: probes.page(address, port, f"/api/v1/{key}")
                )
                self._rows[key] = json.loads(text)[key]
            except (NoAnswer, OSError, ValueError, KeyError) as error:
                raise Skipped(
                    f"the web API of the server does not tell: {in_words(error)}"
                ) from None
        return self._rows[key]

    def daemons(self) -> str:
        """What the server itself says of its daemons."""
        rows = self._known("services")
        bad = [row for row in rows if row["state"] != "running"]
        if bad:
            kind = Wrong if {row["name"] for row in bad} - SPARE else Doubtful
            raise kind(
                "; ".join(f"{row['name']} is {row['state']}: {row['trouble']}" for row in bad),
                "the trouble is told by the daemon itself; mend it, the server starts it again",
            )
        restarted = [
            f"{row['name']} ({row['restarts']}: {row['trouble']})" for row in rows
            if row["restarts"] and row["trouble"]  # a new configuration is none
        ]
        if restarted:
            raise Doubtful(f"restarted since the start: {', '.join(restarted)}",
                           "see its lines in the log of the server")
        return f"{', '.join(row['name'] for row in rows)} run"

    def database(self) -> str:
        """Whether PostgreSQL answers; another machine's is known to the server alone."""
        if self.config.database.mode == "external":
            raise Skipped("it is external; the server's log tells when it is away")
        socket = self.paths.service_runtime("postgres") / ".s.PGSQL.5432"
        try:
            probes.database(str(socket))
        except NoAnswer as error:
            raise Wrong(
                f"PostgreSQL: {error}", "see the lines of postgres in the log of the server"
            ) from None
        return "PostgreSQL answers"

    def log_archive(self) -> str:
        """Whether archived log lines are where the database says, and more can be written."""
        target = archive_target(self.config)
        if target is None:
            raise Skipped("logs.archive of server.conf is not set")
        lacking = lacks()
        if lacking is not None:
            what, _, remedy = lacking.partition("; run: ")
            raise Wrong(what, remedy)
        dsn = self.config.database.dsn or embedded_dsn(self.paths.runtime)
        try:
            found = self._site.from_server(lambda: archived_files(dsn))
        except Unavailable as error:
            raise Skipped(str(error)) from None
        told = self._job("log_archive:check", {
            "target": target._asdict(), "name": str(target), "platform": found.platform,
            "files": found.files, "known": found.known, "begun": found.begun,
            "has_files": bool(found.files), "holder": holder(self.paths.state),
        })
        if told:
            raise Wrong(
                "; ".join(told[:3]) + (f"; {len(told) - 3} more" if len(told) > 3 else ""),
                "walt help show log-archive",
            )
        return f"{target} has {len(found.files)} files"

    def _job(self, job: str, arguments: dict[str, Any]) -> Any:
        """Return what a job of the server's workers answers. Raises Wrong."""
        box = {b"job": job.encode(), b"arguments": json.dumps(arguments).encode()}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "walt.server.workers.main"], input=ampbox.encode(box),
                capture_output=True, check=False, timeout=LONG_ANSWER,
                env={**os.environ, **self._variables()},
            )
        except subprocess.TimeoutExpired:
            raise Wrong(
                f"it does not answer within {LONG_ANSWER:g} s", "walt help show log-archive"
            ) from None
        for answer in ampbox.Decoder().feed(done.stdout):
            if ampbox.join_value(b"progress", answer) is None:
                result = ampbox.join_value(b"result", answer)
                if result is not None:
                    return json.loads(result)
        raise Wrong(f"the check failed: {done.stderr.decode(errors='replace')[-300:]}", RESTART)

    def _variables(self) -> dict[str, str]:
        """Return the variables that systemd gives the server."""
        try:
            return variables(self.config.spec.with_name("server.env").read_text())
        except OSError:
            return {}

    # -- images ------------------------------------------------------------------

    def podman(self) -> str:
        """Whether podman reads its storage, and has what the server knows."""
        names = sorted(row["fullname"] for row in self._known("images"))
        storage = Storage() if self.config.images.storage == "system" else Storage.private(
            self.paths.state, self.paths.runtime
        )
        try:
            done = subprocess.run(
                storage.podman(
                    "image", "ls", "--noheading", "--format", "{{.Repository}}:{{.Tag}}"
                ),
                capture_output=True, text=True, check=False, timeout=3 * ANSWER,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise Wrong("podman is not installed", "apt-get install podman") from None
        except subprocess.TimeoutExpired:
            raise Wrong("podman does not answer", "is its storage locked by another one?") from None
        if done.returncode != 0:
            words = " / ".join(done.stderr.strip().splitlines()[-2:])
            raise Wrong(
                f"podman cannot read its storage: {words}",
                f"repair or restore {storage.graph_root} (walt help show backup)",
            )
        found = set(done.stdout.split())
        lost = [
            name for name in names if f"docker.io/{name}" not in found and name not in found
        ]
        if lost:
            raise Wrong(
                f"the storage lacks {', '.join(lost[:5])}",
                "walt image show --refresh; restore them (walt help show backup)",
            )
        return f"its storage has {len(found)} names"

    def default_image(self) -> str:
        """Whether there is an image for nodes that nobody owns."""
        names = [
            row["fullname"] for row in self._known("images")
            if row["user"] == PLATFORM_USER and row["fullname"].endswith(DEFAULT)
        ]
        if not names:
            raise Doubtful(
                "there is none: new boards have nothing to boot",
                "walt-image-build-default, or let the server reach the Docker Hub",
            )
        return ", ".join(names)

    def node_images(self) -> str:
        """Whether the image of each node is mounted."""
        nodes: list[dict[str, Any]] = self._known("nodes")
        if not nodes:
            raise Skipped("there are no nodes")
        trouble = [f"{row['name']}: {row['trouble']}" for row in nodes if row.get("trouble")]
        if trouble:
            raise Wrong("; ".join(trouble[:5]), "walt image show --refresh; walt node reboot NAME")
        lost = []
        mounted: dict[Path, bool] = {}  # thousands of nodes have few images
        for row in nodes:
            root = self.paths.nodes / row["mac"] / "fs"
            target, exists = root.resolve(), root.exists()
            if exists and target not in mounted and target.is_relative_to(self.paths.images):
                mounted[target] = _mounted_at(target, self.paths)
            if not exists or not mounted.get(target, True):
                lost.append(f"{row['name']} ({row['image']})")
        if lost:
            raise Wrong(
                f"not mounted: {', '.join(lost[:5])}", f"{RESTART}: it mounts them again"
            )
        return f"those of {len(nodes)} nodes are mounted"

    def boot_links(self) -> str:
        """Whether boot loaders find the files of each node."""
        nodes: list[dict[str, Any]] = self._known("nodes")
        if not nodes:
            raise Skipped("there are no nodes")
        lost = []
        for row in nodes:
            for link in (self.paths.nodes / row["ip"] / "tftp", self.paths.nodes / row["mac"]):
                if not link.exists():
                    lost.append(f"{link} of {row['name']}")
        if lost:
            raise Wrong(f"{', '.join(lost[:3])} lead nowhere", f"{RESTART}: it makes them again")
        return f"those of {len(nodes)} nodes lead to boot files"

    def neighbours(self) -> str:
        """Whether the kernel remembers the addresses of all nodes at once (arp(7), gc_thresh3)."""
        nodes: list[dict[str, Any]] = self._known("nodes")
        try:
            most = int(NEIGHBOURS.read_text())
        except (OSError, ValueError):
            raise Skipped("this kernel does not tell how many it remembers") from None
        if len(nodes) > most // 2:
            wanted = 4 * len(nodes)
            raise Doubtful(
                f"the kernel remembers {most} machines of all networks at most, and there are"
                f" {len(nodes)} nodes",
                f"sysctl -w net.ipv4.neigh.default.gc_thresh3={wanted}"
                f" net.ipv4.neigh.default.gc_thresh2={wanted // 2}, and a file of /etc/sysctl.d",
            )
        return f"the kernel remembers {most}, and there are {len(nodes)} nodes"

    # -- helpers --------------------------------------------------------------

    @staticmethod
    def _call(argv: Sequence[str]) -> str:
        """Return what a program prints, "" when it cannot."""
        if shutil.which(argv[0]) is None:
            return ""
        try:
            return subprocess.run(
                list(argv), capture_output=True, text=True, check=False, timeout=ANSWER,
                stdin=subprocess.DEVNULL,
            ).stdout
        except subprocess.TimeoutExpired:
            return ""


def _mounted_at(target: Path, paths: Any) -> bool:
    """Tell whether a directory, or one above it below the images, is a mount point."""
    for place in (target, *target.parents):
        if place == paths.images:
            return False
        if stat.S_ISDIR(place.stat().st_mode) and is_mounted(place):
            return True
    return False
