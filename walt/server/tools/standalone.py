"""`walt-server-dhcpd`, -named, -tftpd, -snmpd, -lldpd, -ptpd: one daemon without the server.

For the person who looks after a platform: what the server runs, in the foreground, with the
configuration that the server wrote last, or that server.conf gives alone. Each prints its command
line and becomes that program. The environment may say otherwise than server.conf: STATE_DIRECTORY,
RUNTIME_DIRECTORY (of the server), PIDFILE, TFTPD_BINARY_NAME, TFTPD_USER, TFTP_ROOT,
SNMPD_BINARY_NAME, SNMPD_USER, SNMPD_GROUP, SNMPD_AGENTX_SOCKET, LLDPD_BINARY_NAME,
PTPD_BINARY_NAME, PTPD_STATUS_FILE (spec server §1.1); WALT_SERVER_CONF names another server.conf.
Status 1 for what is refused.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from walt.common.errors import NotFound, Unavailable, WaltError, in_words
from walt.common.files import write_if_changed
from walt.server.adapters.dhcpd.account import USER as DHCPD_USER
from walt.server.adapters.dhcpd.daemon import LEASES, dhcpd_spec
from walt.server.adapters.lldp import lldpd as lldpd_service
from walt.server.adapters.lldp import snmpd as snmpd_service
from walt.server.adapters.named.daemon import USER as NAMED_USER
from walt.server.adapters.named.daemon import named_spec
from walt.server.adapters.tftpd.daemon import tftpd_spec
from walt.server.adapters.timing import ptpd as ptpd_service
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.config.model import WALT_NET, ServerConfig
from walt.server.domain.network_services.announcing import LldpdConfig, SnmpdConfig
from walt.server.domain.network_services.tftp import MAP, TftpConfig
from walt.server.domain.network_services.timing import PtpConfig
from walt.server.runtime.accounts import give_directory, give_file
from walt.server.runtime.child import ChildSpec, recorded_process

Prepare = Callable[[ServerConfig], ChildSpec]
PROGRAMS = {"tftpd": "in.tftpd"}  # that have another name than their service


def configuration() -> ServerConfig:
    """Return server.conf, with the directories of the environment. Raises ConfigurationError."""
    config = load(Path(os.environ.get("WALT_SERVER_CONF", str(DEFAULT_FILE))))
    paths = config.paths
    return config._replace(paths=paths._replace(
        state=Path(os.environ.get("STATE_DIRECTORY", str(paths.state))),
        runtime=Path(os.environ.get("RUNTIME_DIRECTORY", str(paths.runtime))),
    ))


def _written(file: Path) -> None:
    if not file.exists():
        raise NotFound(f"{file} is not there: the server writes it; start it once")


def dhcpd(config: ServerConfig) -> ChildSpec:
    """Return how dhcpd is run. Raises NotFound, OSError."""
    place = config.paths.service("dhcpd")
    _written(place / "dhcpd.conf")
    give_directory((place / LEASES).parent, DHCPD_USER, mode=0o755)
    give_file(place / LEASES, DHCPD_USER)
    return dhcpd_spec(place)


def named(config: ServerConfig) -> ChildSpec:
    """Return how named is run. Raises NotFound, OSError."""
    place = config.paths.service("named")
    _written(place / "named.conf")
    give_directory(config.paths.service_runtime("named"), NAMED_USER, mode=0o755)
    return named_spec(place)


def tftpd(config: ServerConfig) -> ChildSpec:
    """Return how in.tftpd is run; its map is always the same. Raises OSError."""
    place = config.paths.service("tftpd")
    place.mkdir(parents=True, exist_ok=True)
    write_if_changed(place / "map", MAP)
    root = Path(os.environ.get("TFTP_ROOT", str(config.paths.state)))
    return tftpd_spec(
        TftpConfig(config.server_ip, root), place, os.environ.get("TFTPD_USER", "tftp")
    )


def agentx(config: ServerConfig) -> Path:
    """Return the socket by which snmpd gets what lldpd hears."""
    place = config.paths.service_runtime("snmpd") / "agentx" / "socket"
    return Path(os.environ.get("SNMPD_AGENTX_SOCKET", str(place)))


def snmpd(config: ServerConfig) -> ChildSpec:
    """Return how snmpd is run. Raises OSError, KeyError for an account that is not there."""
    user = os.environ.get("SNMPD_USER", snmpd_service.USER)
    group = os.environ.get("SNMPD_GROUP", user)
    shown = SnmpdConfig(
        config.server_ip, config.subnet, config.services.snmp_community, agentx(config)
    )
    place = config.paths.service("snmpd")
    snmpd_service.prepare(place, shown, user, group)
    return snmpd_service.snmpd_spec(place, user, group)


def lldpd(config: ServerConfig) -> ChildSpec:
    """Return how lldpd is run, at the interface that carries walt-net. Raises OSError."""
    place, runtime = config.paths.service("lldpd"), config.paths.service_runtime("lldpd")
    walt_net = config.networks[WALT_NET]
    told = LldpdConfig(
        config.server_ip, walt_net.raw_device or f"{WALT_NET}-dummy", agentx(config)
    )
    lldpd_service.prepare(place, runtime)
    return lldpd_service.lldpd_spec(told, place, runtime)


def ptpd(config: ServerConfig) -> ChildSpec:
    """Return how ptpd is run. Raises OSError."""
    place, runtime = config.paths.service("ptpd"), config.paths.service_runtime("ptpd")
    status = Path(os.environ.get("PTPD_STATUS_FILE", str(runtime / ptpd_service.STATUS)))
    ptpd_service.prepare(place, runtime, PtpConfig(WALT_NET, status))
    return ptpd_service.ptpd_spec(place, runtime)


def command(config: ServerConfig, spec: ChildSpec) -> list[str]:
    """Return the argument vector, inside the network of the platform."""
    inside = ["ip", "netns", "exec", config.namespace] if config.namespace is not None else []
    dropped = ["setpriv", *spec.credentials, "--"] if spec.credentials else []
    usual = PROGRAMS.get(spec.name, spec.name)
    program = os.environ.get(f"{spec.name.upper()}_BINARY_NAME", usual)
    argv = [program if word == usual else word for word in spec.argv]
    return [*inside, *dropped, *argv]


def _become(name: str, pid_file: str, prepare: Prepare) -> int:
    """Go on as a daemon; return a status when that is refused."""
    try:
        if os.geteuid() != 0:
            raise Unavailable("this must be run by root")
        config = configuration()
        pid = recorded_process(config.paths.service_runtime(name) / pid_file)
        if pid is not None:
            raise Unavailable(f"the server runs {name} already, as process {pid}; stop it first")
        spec = prepare(config)
        argv = command(config, spec)
        os.environ.update(spec.env or {})
        if "PIDFILE" in os.environ:
            Path(os.environ["PIDFILE"]).write_text(f"{os.getpid()}\n")
        print(shlex.join(argv), flush=True)
        os.chdir("/")
        os.execvp(argv[0], argv)  # noqa: S606 (a vector)
    except (WaltError, OSError, KeyError) as error:
        print(f"walt-server-{name}: {in_words(error)}", file=sys.stderr)
    return 1


def dhcpd_main() -> int:
    """Run dhcpd."""
    return _become("dhcpd", "dhcpd.pid", dhcpd)


def named_main() -> int:
    """Run named."""
    return _become("named", "child.pid", named)


def tftpd_main() -> int:
    """Run in.tftpd."""
    return _become("tftpd", "tftpd.pid", tftpd)


def snmpd_main() -> int:
    """Run snmpd."""
    return _become("snmpd", "snmpd.pid", snmpd)


def lldpd_main() -> int:
    """Run lldpd."""
    return _become("lldpd", "lldpd.pid", lldpd)


def ptpd_main() -> int:
    """Run ptpd."""
    return _become("ptpd", "ptpd.pid", ptpd)
