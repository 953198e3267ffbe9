"""Which steps make a server of a machine, in their order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from walt.server.adapters.dhcpd.account import USER
from walt.server.assembly import preflight
from walt.server.assembly.listeners import GROUP
from walt.server.config.load import DEFAULT_FILE
from walt.server.config.model import ServerConfig
from walt.server.tools.setup import busybox, daemon_units, debian, files, manual
from walt.server.tools.setup.busybox import InitServer, InitServerStep, InittabStep
from walt.server.tools.setup.daemon_units import DaemonUnitsStep
from walt.server.tools.setup.database import ClusterStep
from walt.server.tools.setup.downtime import Downtime, Server, UnitServer
from walt.server.tools.setup.exports import ExportsStep
from walt.server.tools.setup.former import FormerDatabaseStep
from walt.server.tools.setup.machine import Machine, Memory
from walt.server.tools.setup.steps import Files, Links, OwnFile, Step
from walt.server.tools.setup.systemd import (
    UNIT,
    ConfinementStep,
    EnabledStep,
    FormerUnitsStep,
    ServerStep,
)
from walt.server.tools.setup.vpn import VpnStep

_NFSD = "nfsd.ko"  # nfsd.ko.xz on Debian 13


@dataclass(frozen=True)
class Places:
    """Where things go: `programs` is the directory of the virtual environment's programs.

    `init` is what starts the server: `systemd` or `busybox`.
    """

    programs: Path
    config: Path = DEFAULT_FILE
    units: str = "/etc/systemd/system"
    prefix: str = "/usr/local"
    init: str = "systemd"


def with_ganesha(machine: Machine, config: ServerConfig) -> bool:
    """Tell whether nfs-ganesha gives nodes their files: where the kernel cannot, or as wished."""
    if config.services.nfs == "auto":
        # The kernel's server is that of the machine's own network.
        return config.namespace is not None or not _kernel_serves(machine)
    return config.services.nfs == "ganesha"


def _kernel_serves(machine: Machine) -> bool:
    """Tell whether a kernel of this machine has an NFS server: it may not be loaded yet."""
    if "nfsd" in (machine.read("/proc/filesystems") or ""):
        return True
    running = f"/lib/modules/{os.uname().release}"
    trees = [machine.at(running)] if machine.at(running).is_dir() else [
        *machine.at("/lib/modules").glob("*")
    ]
    return any(
        f"/{_NFSD}" in (tree / name).read_text()
        for tree in trees for name in ("modules.dep", "modules.builtin") if (tree / name).exists()
    )


def server_of(machine: Machine, places: Places) -> Server:
    """Return how the server of a machine is stopped and started."""
    if places.init == "systemd":
        return UnitServer(machine)
    return _init_server(machine, places)


def _init_server(machine: Machine, places: Places) -> InitServer:
    run = busybox.script(places.prefix, places.programs, places.config)
    return InitServer(machine, InittabStep(machine, run.path))


def steps(
    machine: Machine, config: ServerConfig, places: Places, downtime: Downtime, *, start: bool,
    keep: bool = False, mirror: str | None = None,
) -> list[Step]:
    """Return the steps; `start`: the server runs at the end; `keep`: its PostgreSQL stays.

    `mirror` is the address of a mirror of Debian, for packages that no source of apt has.
    """
    memory = Memory(machine, config.paths.state)
    ganesha = with_ganesha(machine, config)
    embedded = config.database.mode == "embedded"
    nfs = debian.GANESHA if ganesha else debian.KERNEL_NFS
    chosen = sorted({*preflight.chosen_programs(config).values()} - {*debian.PACKAGES})
    systemd = places.init == "systemd"
    links = [
        *(
            (f"{places.prefix}/bin/{program}", places.programs / program)
            for program in files.programs()
        ),
        (f"{places.prefix}/bin/walt-python3", places.programs / "python3"),
    ]

    found: list[Step] = [
        debian.PackagesStep(machine, memory, (*debian.PACKAGES, *chosen, *nfs), mirror),
        debian.AccountsStep(machine, (USER,), (GROUP,)),
        *([VpnStep(machine, config.paths.state)] if config.vpn.enabled else []),
        # Without systemd nothing starts them.
        *([debian.DebianServicesStep(machine, memory)] if systemd else []),
        *([ClusterStep(machine, config.paths, downtime, keep=keep)] if embedded else []),
        *([FormerDatabaseStep(machine, config.paths.state, downtime)] if embedded else []),
        ConfinementStep(machine, config.paths),
        Files("settings", machine, files.first_files(config.spec)),
        Files("registries of podman", machine, [
            OwnFile(files.REGISTRIES, files.registries(config.registries))
        ]),
        Links("commands", machine, links),
        Files("completion of shells", machine, files.completion(places.prefix)),
        Files("manual pages", machine, manual.pages(places.prefix)),
    ]
    if not ganesha:
        found.append(ExportsStep(machine))
    if not systemd:
        return [*found, *_init_steps(machine, places, start=start)]
    if not ganesha:
        found.append(EnabledStep(
            machine, config.services.nfsd_service_name, "the kernel's NFS server"
        ))
    return [*found, *_unit_steps(machine, config, places, start=start)]


def _init_steps(machine: Machine, places: Places, *, start: bool) -> list[Step]:
    """Return the steps by which init of busybox starts the server."""
    run = busybox.script(places.prefix, places.programs, places.config)
    server = _init_server(machine, places)
    found: list[Step] = [Files("program of init", machine, [run]), server.table]
    if start:
        found.append(InitServerStep(server, (
            places.config, Path(run.path), Path(files.ENVIRONMENT), *_installation(),
        )))
    return found


def _unit_steps(
    machine: Machine, config: ServerConfig, places: Places, *, start: bool
) -> list[Step]:
    """Return the steps by which systemd starts the server, and its daemons where it runs them."""
    def reload() -> None:
        if machine.has_systemd:
            machine.run("systemctl", "daemon-reload")

    unit = f"{places.units}/{UNIT}"
    found: list[Step] = [
        # As late as can be: an older server cannot go on without them.
        FormerUnitsStep(machine, places.units),
        Files("unit", machine, [
            OwnFile(unit, files.unit(UNIT, places.programs, places.config))
        ], reload),
    ]
    daemons = daemon_units.units(config, places.programs, places.config, places.units)
    if daemons:
        # Where set-up has just installed it, it does not run.
        found.append(EnabledStep(machine, "dbus.socket", "the message bus of systemd"))
    found.append(DaemonUnitsStep(machine, places.units, daemons))
    if start:
        found.append(ServerStep(machine, (
            places.config, Path(unit), Path(files.ENVIRONMENT),
            *(Path(file.path) for file in daemons), *_installation(),
        )))
    found.append(DaemonUnitsStep(machine, places.units, daemons, surplus=True))
    return found


def _installation() -> list[Path]:
    """Return a file that is new when the product was installed anew."""
    record = metadata.distribution("walt").read_text("RECORD")
    if record is None:
        return []
    place = metadata.distribution("walt").locate_file("walt/__init__.py")
    return [Path(str(place))]
