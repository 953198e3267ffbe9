"""The validated content of server.conf (spec server §8.3, design §5)."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, NamedTuple

WALT_NET = "walt-net"


class Paths(NamedTuple):
    """Where the server keeps its files; everything derives from four directories."""

    state: Path = Path("/var/lib/walt")
    runtime: Path = Path("/run/walt")
    cache: Path = Path("/var/cache/walt")
    log: Path = Path("/var/log/walt")

    @property
    def rpc_socket(self) -> Path:
        """The unix socket of the RPC."""
        return self.runtime / "rpc.sock"

    @property
    def stream_socket(self) -> Path:
        """The unix socket of the stream requests."""
        return self.runtime / "streams.sock"

    @property
    def web_socket(self) -> Path:
        """The unix socket of the pages, for what clients relay."""
        return self.runtime / "web.sock"

    @property
    def vpn_socket(self) -> Path:
        """The unix socket where tunnels get their network devices."""
        return self.runtime / "vpn.sock"

    @property
    def nodes(self) -> Path:
        """The tree of node directories (spec server §1.3)."""
        return self.state / "nodes"

    @property
    def images(self) -> Path:
        """Where images are mounted."""
        return self.state / "images"

    @property
    def keys(self) -> Path:
        """SSH host keys shared by all nodes."""
        return self.state / "keys"

    def service(self, name: str) -> Path:
        """Return the directory of the generated configuration of one daemon."""
        return self.state / "services" / name

    def service_runtime(self, name: str) -> Path:
        """Return the directory of pid files and sockets of one daemon."""
        return self.runtime / name


class NetworkConfig(NamedTuple):
    """One entry of `network`: an interface of the server."""

    name: str
    raw_device: str | None = None
    vlan: int | None = None
    ip: IPv4Interface | Literal["dhcp"] | None = None


class Registry(NamedTuple):
    """One entry of `registries` (spec server §5.6)."""

    label: str
    api: Literal["docker-hub", "docker-registry-v2", "jfrog-artifactory"]
    description: str = ""
    host: str = ""
    port: int = 443
    protocol: Literal["https", "http", "https-no-verify"] = "https"
    auth: Literal["basic", "none"] = "basic"
    repository: str | None = None


REGISTRIES = (Registry("hub", "docker-hub"),)  # where nothing is said of them


class Vpn(NamedTuple):
    """Section `vpn`; disabled unless complete.

    Entry points are hosts, the one of ssh with `:port` where that is not 22; `ssh_port` is where
    our own sshd listens.
    """

    enabled: bool = False
    ssh_entrypoint: str | None = None
    http_entrypoint: str | None = None
    boot_mode: Literal["permissive", "enforced"] | None = None
    ssh_port: int = 12322


class Database(NamedTuple):
    """Section `database`: a private embedded cluster, or an external server."""

    mode: Literal["embedded", "external"] = "embedded"
    dsn: str | None = None


class Nbfs(NamedTuple):
    """Section `services.nbfs`: a network file service of somebody else, where there is one."""

    enabled: bool = False
    exports: Path = Path("/etc/nbfsd/exports.d")  # where it reads what to export
    control: Path = Path("/run/nbfsd/ctl.sock")


class Services(NamedTuple):
    """Section `services`."""

    runner: Literal["children", "systemd"] = "children"
    nfs: Literal["auto", "kernel", "ganesha"] = "auto"
    nfsd_service_name: str = "nfs-kernel-server.service"
    http_port: int = 80
    http_host_port: int = 12380
    http_ui_port: int = 12381  # of the loopback, for browsers of this machine; 0: none
    lldp: bool = True  # lldpd and snmpd: the server is found by its switch
    snmp_community: str = "private"  # that reads what snmpd shows
    ptp: bool = True  # ptpd: the clocks of nodes follow that of the server
    nbfs: Nbfs = Nbfs()


class Images(NamedTuple):
    """Section `images`."""

    storage: Literal["private", "system"] = "private"
    runtime: str | None = None
    build_isolation: Literal["auto", "oci", "chroot"] = "auto"
    ulimits: tuple[str, ...] = ()
    docker_socket: Path = Path("/var/run/docker.sock")
    git_networks: tuple[IPv4Network | IPv6Network, ...] = ()  # that builds may read, always
    git_identity: Path | None = None  # the ssh key of builds for git


class Persist(NamedTuple):
    """Section `persist`: `size` in bytes of the persistent data of a node and owner."""

    size: int = 4 << 30


class LogArchive(NamedTuple):
    """Section `logs.archive`: weeks of log lines that ended `after` days ago become files.

    They are in a directory, or in the bucket of a store that speaks S3, below a prefix.
    """

    after: int = 30  # days
    directory: str | None = None
    bucket: str | None = None
    prefix: str = ""  # empty, or ends with a slash
    endpoint: str | None = None
    region: str | None = None
    credentials: str | None = None  # a file


class ServerConfig(NamedTuple):
    """All of server.conf, validated; `spec` is the file server.spec beside it."""

    paths: Paths
    networks: Mapping[str, NetworkConfig]
    namespace: str | None = None
    registries: tuple[Registry, ...] = REGISTRIES
    vpn: Vpn = Vpn()
    database: Database = Database()
    services: Services = Services()
    images: Images = Images()
    persist: Persist = Persist()
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    remote_clients: Literal["tls", "open"] = "tls"
    names: tuple[str, ...] = ()  # under which other machines reach the server
    web_clients: tuple[IPv4Network, ...] = ()  # that may read the web API and the metrics
    log_retention_days: int | None = None
    log_archive: LogArchive | None = None
    reconnect_grace: int = 180
    power_saving: int = 7200  # seconds that a free node stays powered; 0: always
    # What becomes of a device of unknown type that a node names as its switch.
    reported_switches: Literal["propose", "convert"] = "propose"
    spec: Path = Path("/etc/walt/server.spec")

    @property
    def walt_interface(self) -> IPv4Interface:
        """The server's address in walt-net, with its prefix."""
        ip = self.networks[WALT_NET].ip
        assert isinstance(ip, IPv4Interface)
        return ip

    @property
    def server_ip(self) -> IPv4Address:
        """The server's address in walt-net."""
        return self.walt_interface.ip

    @property
    def subnet(self) -> IPv4Network:
        """The subnet of walt-net."""
        return self.walt_interface.network
