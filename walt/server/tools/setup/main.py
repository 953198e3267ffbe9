"""`walt-server-setup`: make this Debian machine a WalT server, or tell what lacks for that.

Usage: walt-server-setup [--check | --remove | --before-debian-upgrade] [--mode MODE]
           [--init-system SYSTEM] [--set KEY=VALUE]… [--board-firmware ARCHIVE]…
           [--keep-postgresql] [--drop-former-database] [--config FILE]

Everything may be called again, at any time: what is as it should be is left alone, and a call
that was cut is taken up. Status: 0, or 1 for what was refused, failed, or lacks (`--check`).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType
from typing import TextIO

from walt.common.errors import ConfigurationError, Unavailable, WaltError, in_words
from walt.server.config import edit
from walt.server.config.load import DEFAULT_FILE, load, parse
from walt.server.config.model import ServerConfig
from walt.server.tools.setup import busybox
from walt.server.tools.setup.database import drop_former, former_clusters
from walt.server.tools.setup.debian import is_mirror
from walt.server.tools.setup.downtime import Downtime
from walt.server.tools.setup.editor import Editor, gateway_vlans, interfaces
from walt.server.tools.setup.firmware import FirmwareStep, obtained
from walt.server.tools.setup.machine import Machine, Programs, release
from walt.server.tools.setup.plan import Places, server_of, steps
from walt.server.tools.setup.release import ReleaseUpgrade, refusal
from walt.server.tools.setup.steps import Step
from walt.server.tools.setup.systemd import UNIT

NAME = "walt-server-setup"
LOCK = Path("/run/walt-server-setup.lock")
LOGS = Path("/var/log/walt/setup")
_PLAIN = re.compile(r"(?:/[\w.@+-]+)+", re.ASCII)
MODES = ("auto", "install", "upgrade", "image-install")


def main(words: Sequence[str] | None = None, machine: Machine | None = None) -> int:
    """Run the command, on this machine or another one; return its exit status."""
    options = _parser().parse_args(words)
    log = Log()
    machine = machine or Machine(Programs(log.write))
    former = [
        (number, signal.signal(number, _interrupt)) for number in (signal.SIGTERM, signal.SIGHUP)
    ]
    try:
        _refuse(options, machine)
        if options.check:
            return _check(options, machine)
        with _alone(machine.at(LOCK)), log.opened(machine.at(LOGS)):
            if options.before:
                return _before_upgrade(options, machine)
            return _remove(options, machine) if options.remove else _set_up(options, machine)
    except (WaltError, OSError) as error:
        print(f"{NAME}: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{NAME}: interrupted; call it again to go on", file=sys.stderr)
        return 130
    finally:
        for number, handler in former:
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, so that what was stopped is started: a terminal may have gone."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description="Make this Debian machine a WalT server; may be called again.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="change nothing, tell what lacks")
    what.add_argument(
        "--before-debian-upgrade", action="store_true", dest="before",
        help="look whether Debian can be upgraded, stop the server, copy its database, and tell"
        " how to go on",
    )
    what.add_argument(
        "--remove", action="store_true",
        help="stop the server and remove what set-up made; data, settings and packages stay",
    )
    parser.add_argument(
        "--mode", type=str.lower, choices=MODES, default="auto",
        help="upgrade: only where a server is; image-install: start nothing",
    )
    parser.add_argument(
        "--init-system", type=str.lower, choices=("systemd", "busybox"),
        help="what starts the server; busybox: a machine without systemd, or an image of one",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="change server.conf first, as in network.walt-net.raw-device=eth1",
    )
    parser.add_argument(
        "--edit-conf", action="store_true",
        help="ask about networks and registries of server.conf first, on the terminal",
    )
    parser.add_argument(
        "--board-firmware", action="append", default=[], metavar="ARCHIVE", dest="firmware",
        help="boot files of boards (tar or zip, a file or an http address) into tftp-static",
    )
    parser.add_argument(
        "--debian-mirror", metavar="ADDRESS", dest="mirror",
        help="a mirror of Debian, for packages that no source of apt here has",
    )
    parser.add_argument(
        "--keep-postgresql", action="store_true",
        help="leave the database with the PostgreSQL that made it, this time",
    )
    parser.add_argument(
        "--drop-former-database", action="store_true",
        help="remove the databases that were kept when a newer PostgreSQL took over",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE)
    parser.add_argument("--systemd-dir", default="/etc/systemd/system")
    parser.add_argument("--prefix", default="/usr/local", help="where commands are linked")
    return parser


def _places(options: argparse.Namespace, machine: Machine) -> Places:
    return Places(
        Path(sys.prefix) / "bin", options.config.absolute(), options.systemd_dir, options.prefix,
        options.init_system
        or ("busybox" if busybox.is_set_up(machine, options.prefix) else "systemd"),
    )


def _refusals(options: argparse.Namespace, machine: Machine) -> list[str]:
    """Return why this cannot be done here."""
    found = []
    if os.geteuid() != 0 and not options.check:
        found.append("this must be run by root")
    if sys.prefix == sys.base_prefix:
        found.append(
            "WalT must be installed in a virtual environment: python3 -m venv /opt/walt, then"
            " /opt/walt/bin/pip install the wheel with its extra `server`"
        )
    for path in (sys.prefix, str(options.config.absolute()), options.prefix, options.systemd_dir):
        if not _PLAIN.fullmatch(path):
            found.append(
                f"{path} cannot be named plainly in units and tables of init: choose a path of"
                " letters, digits and . _ @ + - alone"
            )
    if options.mirror is not None and not is_mirror(options.mirror):
        found.append(
            f"{re.sub('//[^/]*@', '//…@', options.mirror)!r} is no address of a mirror, as"
            " http://mirror.example.org/debian is; a name and a password belong into a file of"
            " /etc/apt/auth.conf.d, see apt_auth.conf(5)"
        )
    wrong = refusal(release(machine))
    if wrong is not None:
        found.append(wrong)
    there = busybox.is_set_up(machine, options.prefix) \
        or machine.read(f"{options.systemd_dir}/{UNIT}") is not None
    if options.init_system == "busybox" and machine.has_systemd:
        found.append("systemd runs this machine: --init-system BUSYBOX is for those without it")
    if options.mode == "upgrade" and not there:
        found.append("there is no server to upgrade here; leave --mode out to install one")
    return found


def _refuse(options: argparse.Namespace, machine: Machine) -> None:
    refusals = _refusals(options, machine)
    if refusals:
        raise Unavailable("\n".join(refusals))


def _check(options: argparse.Namespace, machine: Machine) -> int:
    if options.edit_conf:
        raise Unavailable("--edit-conf changes server.conf, and --check changes nothing")
    if options.firmware:
        raise Unavailable("--board-firmware writes files, and --check changes nothing")
    if options.drop_former_database:
        raise Unavailable("--drop-former-database removes files, and --check changes nothing")
    if options.changes:
        raise Unavailable("--set changes server.conf, and --check changes nothing")
    lacking = 0
    if machine.read(options.config) is None:
        print(f"{options.config}: missing")
        lacking = 1
    config = _present(options.config, machine)
    start = options.mode != "image-install"
    places = _places(options, machine)
    downtime = Downtime(server_of(machine, places))
    for step in steps(machine, config, places, downtime, start=start, keep=options.keep_postgresql):
        for line in step.lacks():
            print(f"{step.title}: {line}")
            lacking += 1
    print(f"{lacking} things lack; {NAME} sees to them." if lacking else "Nothing lacks.")
    return 1 if lacking else 0


def _set_up(options: argparse.Namespace, machine: Machine) -> int:
    with ExitStack() as fetched:
        archives = [fetched.enter_context(obtained(source)) for source in options.firmware]
        return _set_up_with(options, machine, archives)


def _set_up_with(options: argparse.Namespace, machine: Machine, archives: list[Path]) -> int:
    config = _configure(options, machine)
    places = _places(options, machine)
    downtime = Downtime(server_of(machine, places))
    upgrade = ReleaseUpgrade(machine, config, release(machine), downtime)
    told = upgrade.resume()
    if told is not None:
        print(told)
    problem = busybox.problem(config) if places.init == "busybox" else None
    if problem is not None:
        raise Unavailable(problem)
    start = options.mode != "image-install"
    firmware = [FirmwareStep(machine, config.paths.state, archive) for archive in archives]
    found = steps(
        machine, config, places, downtime, start=start, keep=options.keep_postgresql,
        mirror=options.mirror,
    )
    with downtime.limited():
        _apply([*firmware, *found])
    upgrade.close()
    if options.drop_former_database:
        for cluster in drop_former(machine, config.paths.state):
            print(f"{cluster} is removed")
    for cluster in former_clusters(machine, config.paths.state):
        print(
            f"{cluster} is the database as an older PostgreSQL had it; {NAME}"
            " --drop-former-database removes it"
        )
    runs = downtime.server.runs()
    if places.init == "busybox" and not runs:
        print("Everything is in place; init starts the server when the machine starts.")
    elif not start:
        print("Everything is in place; the server starts when it is enabled.")
    elif runs:
        print(f"The server runs: its address is {config.server_ip}. Try: walt device show")
    else:
        print("Everything is in place; the server starts when systemd does.")
    return 0


def _apply(found: Sequence[Step]) -> None:
    """Take these steps. Raises WaltError, OSError."""
    for step in found:
        if not step.lacks():
            print(f"{step.title}: as it should be")
            continue
        print(f"{step.title}...", flush=True)
        step.apply()
        left = step.lacks()
        if left:
            raise Unavailable(f"{step.title}: {'; '.join(left)}")


def _before_upgrade(options: argparse.Namespace, machine: Machine) -> int:
    if options.firmware or options.changes or options.edit_conf:
        raise Unavailable("--before-debian-upgrade changes no configuration")
    config = _load(options.config, machine)
    downtime = Downtime(server_of(machine, _places(options, machine)))
    begun = ReleaseUpgrade(machine, config, release(machine), downtime).begin()
    for sentence in begun.done:
        print(sentence)
    print("Go on by:")
    for command in begun.commands:
        print(f"  {command}")
    print(f"To stay with this Debian, call {NAME} instead.")
    return 0


def _configure(options: argparse.Namespace, machine: Machine) -> ServerConfig:
    """Make or change server.conf; nothing is written that the server would refuse."""
    place = options.config
    text = machine.read(place)
    changes = [edit.parse_change(change) for change in options.changes]
    wanted = edit.changed(edit.new_text(_free_net(machine)) if text is None else text, changes)
    if options.edit_conf:
        wanted = _edited(wanted, machine)
    try:
        parse(wanted)
    except ConfigurationError as error:
        lines = "\n".join(f"  {line}" for line in str(error).splitlines())
        raise ConfigurationError(f"errors in {place}, which stays as it is:\n{lines}") from None
    if wanted != text:
        print(f"{place} {'is written' if text is None else 'changes'}")
        machine.write(place, wanted)
    return _load(place, machine)


def _edited(text: str, machine: Machine) -> str:
    """Return what a person makes of a server.conf on the terminal."""
    if not sys.stdin.isatty():
        raise Unavailable("--edit-conf asks on a terminal, and there is none; use --set")
    try:
        found = Editor(
            text, interfaces(machine), input, print, taken=gateway_vlans(machine)
        ).run()
    except EOFError:
        found = None
    if found is None:
        raise Unavailable("discarded: nothing was changed")
    return found


def _load(place: Path, machine: Machine) -> ServerConfig:
    return load(machine.at(place))._replace(spec=place.with_name("server.spec"))


def _present(place: Path, machine: Machine) -> ServerConfig:
    """Return what server.conf says; where there is none, what a new one would."""
    if machine.read(place) is None:
        return parse(edit.new_text(_free_net(machine)))
    return _load(place, machine)


def _free_net(machine: Machine) -> int:
    """Return the third byte of a network 192.168.x.0/24 that this machine has no route to."""
    taken = []
    for line in (machine.read("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()  # interface, destination, gateway, flags, …, mask (7), in hex
        taken.append((_address(fields[1]), _address(fields[7])))
    for net in (183, *range(2, 254)):
        address = int(IPv4Network(f"192.168.{net}.0/24").network_address)
        if not any(mask and address & mask == destination for destination, mask in taken):
            return net
    return 183


def _address(text: str) -> int:
    # The kernel prints the number that lies in memory, in the order of the processor.
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")


def _remove(options: argparse.Namespace, machine: Machine) -> int:
    # Somebody may have removed it before, and a package that cannot be removed helps nobody.
    config = _present(options.config, machine)
    places = _places(options, machine)
    downtime = Downtime(server_of(machine, places))
    done = steps(machine, config, places, downtime, start=True)
    for step in reversed(done):
        print(f"{step.title}...", flush=True)
        step.undo()
    print(
        f"Removed. {config.paths.state}, {options.config.parent} and Debian's packages stay."
    )
    return 0


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep two of them from working at once. Raises Unavailable, OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another {NAME} is at work; wait until it is done") from None
        yield


class Log:
    """What programs said, in a file for each call (spec server §1.10)."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None

    def write(self, text: str) -> None:
        """Add some lines; before the file is opened they are not kept."""
        if self._stream is not None:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._stream.flush()

    @contextmanager
    def opened(self, place: Path) -> Iterator[None]:
        """Keep what is written meanwhile in a file of a directory."""
        place.mkdir(parents=True, exist_ok=True)
        name = place / f"{NAME}.{time.strftime('%m%d%y%H%M%S')}.log"
        with open(name, "a", encoding="utf-8", errors="replace") as stream:
            self._stream = stream
            try:
                yield
            finally:
                self._stream = None


if __name__ == "__main__":
    sys.exit(main())
