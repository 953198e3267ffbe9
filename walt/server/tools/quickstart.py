"""`make run` and `make stop`: a whole isolated platform with one virtual node.

Each step is told with its duration; nothing is asked.
"""

from __future__ import annotations

import argparse
import fcntl
import grp
import os
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from walt.client.commands.node import show
from walt.client.errors import Failure
from walt.client.operations.nodes import wait_booted
from walt.client.session import Session
from walt.common.errors import WaltError
from walt.common.names import default_image
from walt.server.assembly import confinement
from walt.server.assembly.listeners import GROUP
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.config.model import ServerConfig
from walt.server.runtime.child import process_start
from walt.server.tools.image_recipe import main as build_image
from walt.server.tools.timeline import boot_timeline

NODE = "vnode1"
USER = "demo"
START_PATIENCE = 60.0
STOP_PATIENCE = 90.0
BOOT_PATIENCE = 900  # seconds: an emulated machine on a busy one is slow

_CONFIG = """# A platform of virtual nodes, in a network namespace of its own: it cannot
# disturb the network of this machine. See docs/administrator.md.
network:
  namespace: walt
  walt-net:
    ip: 192.168.{net}.1/24
"""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show a step and its duration."""
    print(f"{title}... ", end="", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed")
        raise
    print(f"done in {time.monotonic() - start:.1f} s", flush=True)


def ensure_config(path: Path) -> None:
    """Write the configuration of an isolated platform, unless there is one."""
    if path.exists():
        return
    with step(f"Writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_CONFIG.format(net=2 + secrets.randbelow(250)))


def ensure_group() -> None:
    """Make the group whose members may use the server, unless there is one."""
    try:
        grp.getgrnam(GROUP)
    except KeyError:
        with step(f"Making the group {GROUP}"):
            subprocess.run(["groupadd", "--system", GROUP], check=True)


@contextmanager
def alone(config: ServerConfig) -> Iterator[None]:
    """Keep others from starting or stopping the same platform meanwhile. Raises Failure."""
    config.paths.runtime.mkdir(parents=True, exist_ok=True)
    with open(config.paths.runtime / "quickstart.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                "this platform is being started or stopped already; wait until that is done"
            ) from None
        yield


def pid_file(config: ServerConfig) -> Path:
    """Return where twistd writes the pid of the server."""
    return config.paths.runtime / "server.pid"


def running(config: ServerConfig) -> int | None:
    """Return the pid of the server if it runs."""
    try:
        pid = int(pid_file(config).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"walt-server" in command else None


def started_with(pid: int) -> Path:
    """Return the configuration file of a server that runs, the default one if it names none."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    if b"--config" not in words:
        return DEFAULT_FILE
    return Path(os.fsdecode(words[words.index(b"--config") + 1]))


def start(config: ServerConfig, config_file: Path) -> None:
    """Start the server in the background, and wait until it says hello."""
    config.paths.runtime.mkdir(parents=True, exist_ok=True)
    config.paths.log.mkdir(parents=True, exist_ok=True)
    log = config.paths.log / "server.log"
    pid_file(config).unlink(missing_ok=True)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("twistd")), "--nodaemon",
                "--pidfile", str(pid_file(config)),
                "--logger", "walt.server.assembly.logging.observer",
                "walt-server", "--config", str(config_file.absolute()),
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            cwd="/",
        )
    limit = time.monotonic() + START_PATIENCE
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise Failure(f"the server ended with status {process.returncode}:\n{_tail(log)}")
        try:
            Session().close()
            if running(config) == process.pid:  # not another one, at the same place
                return
        except Failure:
            pass
        time.sleep(0.1)
    raise Failure(f"the server is not ready after {START_PATIENCE:g} s; see {log}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines[-40:] if line.startswith("walt-server:")]
    return "\n".join(told or lines[-10:])


def ensure_node() -> None:
    """Create and boot the node, unless it is there."""
    session = Session()
    tables = session.json("cs.nodes.show", "tables", all=True)
    names = {row["name"] for key in ("own", "free", "others") for row in tables[key]}
    if NODE not in names:
        with step(f"Creating {NODE}"):
            session.call("cs.nodes.create", name=NODE)
    with step(f"Waiting for the boot of {NODE}"):
        wait_booted(session, NODE, BOOT_PATIENCE)


def has_default_image(config: ServerConfig) -> bool:
    """Tell whether the default image of virtual nodes is in the store."""
    tables = Session().json("cs.images.show", "tables", all=True, refresh=True)
    name = default_image("pc-x86-64").split("/")[1].removesuffix(":latest")
    return any(row["name"] == name for row in tables["default"])


def run(config_file: Path, variant: str) -> int:
    """Bring the platform up; return the exit status."""
    begin = time.monotonic()
    ensure_config(config_file)
    ensure_group()
    config = load(config_file)
    _use(config)
    with alone(config):
        return _bring_up(config, config_file, variant, begin)


def _bring_up(config: ServerConfig, config_file: Path, variant: str, begin: float) -> int:
    pid = running(config)
    if pid is not None and started_with(pid).resolve() != config_file.resolve():
        raise Failure(
            "a server with another configuration runs already; end it with:"
            f" make stop CONFIG={started_with(pid)}"
        )
    if pid is None:
        if confinement.allow(config.paths):
            print("AppArmor lets dhcpd and named use the directories of the server now")
        with step("Starting the server"):
            start(config, config_file)
    if not has_default_image(config):
        print("Making the default image of virtual nodes", flush=True)
        status = build_image(["--config", str(config_file), "--variant", variant])
        if status:
            return status
    ensure_node()
    show(all=False, names_only=False, json=False)
    print("\nTimeline of the boot:")
    for seconds, event in boot_timeline(NODE):
        print(f"  {seconds:7.2f} s  {event}")
    print(f"\nThe platform is ready ({time.monotonic() - begin:.0f} s). What to try next:")
    walt = Path(sys.executable).with_name("walt")
    settings = f"WALT_USERNAME={USER} "
    if config.paths.runtime != Path("/run/walt"):
        settings += f"WALT_SERVER=unix:{config.paths.rpc_socket} "
    for words in (f"node shell {NODE}", f"node run {NODE} -- uname -a", f"node reboot {NODE}",
                  "log show --platform --history full", "help show tutorial"):
        print(f"  {settings}{walt} {words}")
    print(f"Accounts of this machine may use it, too: adduser NAME {GROUP}")
    if not reachable_by_all(walt):
        print(f"  (not by {walt}, where they have no access: clone into a place such as /srv)")
    link = pages()
    if link is not None:
        print(f"In a browser of this machine, within two minutes (again: walt web):\n  {link}")
    print("A server for a team: walt help show team-server")
    print("make stop ends everything.")
    return 0


def pages() -> str | None:
    """Return a link to the pages, None where the server has no port for browsers."""
    try:
        answer = Session().call("cs.web.invite")
    except Failure:
        return None
    return f"{answer[b'origin'].decode()}/ui/#code={answer[b'code'].decode()}"


def reachable_by_all(program: Path) -> bool:
    """Tell whether every account may run a program: all may enter the directories above it."""
    return all(
        place.stat().st_mode & stat.S_IXOTH
        for path in (program, program.resolve()) for place in (path, *path.parents)
    )


def stop(config_file: Path) -> int:
    """End the server and wait for its end; return the exit status."""
    config = load(config_file)
    with alone(config):
        return _take_down(config)


def _take_down(config: ServerConfig) -> int:
    pid = running(config)
    if pid is None:
        print("The server is not running.")
        return 0
    with step("Stopping the server"):
        born = process_start(pid)
        os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + STOP_PATIENCE
        while process_start(pid) == born:
            if time.monotonic() > limit:
                # Its programs end with it; the next start clears what they leave.
                os.kill(pid, signal.SIGKILL)
                raise Failure(
                    f"the server (pid {pid}) did not stop within {STOP_PATIENCE:g} s and was"
                    f" killed; see {config.paths.log}"
                )
            time.sleep(0.1)
    return 0


def _use(config: ServerConfig) -> None:
    os.environ.setdefault("WALT_SERVER", f"unix:{config.paths.rpc_socket}")
    os.environ.setdefault("WALT_USERNAME", USER)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Start or stop a platform of virtual nodes.")
    parser.add_argument("action", choices=("run", "stop"))
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE)
    parser.add_argument("--variant", choices=("full", "small"), default="full")
    options = parser.parse_args(words)
    if os.geteuid() != 0:
        print("This must be run by root: it configures networks and mounts.", file=sys.stderr)
        return 1
    try:
        if options.action == "stop":
            return stop(options.config)
        return run(options.config, options.variant)
    except (Failure, WaltError) as error:
        print(str(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nAborted. If the server was started, it goes on; make stop ends it.",
              file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
