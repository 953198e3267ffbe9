"""Read server.conf: every error is found and reported at once."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from walt.common.errors import ConfigurationError, in_words
from walt.server.config.model import (
    REGISTRIES,
    WALT_NET,
    Database,
    Images,
    LogArchive,
    Nbfs,
    NetworkConfig,
    Paths,
    Persist,
    Registry,
    ServerConfig,
    Services,
    Vpn,
)

DEFAULT_FILE = Path("/etc/walt/server.conf")
RUNTIME_DIR_LIMIT = 40  # podman refuses a runroot above 50 characters, sockets end at 107
SOCKET_LIMIT = 107  # unix(7)

_INTERFACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}")
_LABEL = re.compile(r"[a-z0-9-]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ENTRY_POINT = re.compile(_HOST.pattern + r"(:[1-9][0-9]{0,4})?")
_ULIMIT = re.compile(r"[a-z]+=[0-9-]+(:[0-9-]+)?")
_SIZE = re.compile(r"([1-9][0-9]{0,5})([MGT])")
_UNITS = {"M": 20, "G": 30, "T": 40}
SMALLEST_PERSIST, LARGEST_PERSIST = 16 << 20, 16 << 40  # bytes; the latter is that of ext4
_COMMUNITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
# Names of buckets and keys that need no quoting anywhere (Amazon S3 user guide, "Bucket naming
# rules", "Naming Amazon S3 objects").
_STORE = re.compile(
    r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
    r"(?:/([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*))?/?"
)
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[1-9][0-9]{0,4})?")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]*")


class _Section:
    """One mapping of the file; collects the errors met while reading it."""

    def __init__(self, errors: list[str], path: str, data: Any) -> None:
        self._errors = errors
        self._path = path
        self._data: dict[str, Any] = {}
        if isinstance(data, dict):
            self._data = {str(key): value for key, value in data.items()}
        elif data is not None:
            errors.append(f"{path or 'the file'}: expected a mapping of keys to values")
        self._known: set[str] = set()

    @property
    def is_absent(self) -> bool:
        """Whether the file does not have this mapping at all, or has nothing in it."""
        return not self._data

    def where(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def error(self, key: str, text: str) -> None:
        self._errors.append(f"{self.where(key)}: {text}")

    def raw(self, key: str) -> Any:
        self._known.add(key)
        return self._data.get(key)

    def section(self, key: str) -> _Section:
        return _Section(self._errors, self.where(key), self.raw(key))

    def text(self, key: str, default: Any, pattern: re.Pattern[str] | None = None) -> Any:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value:
            self.error(key, "expected a text")
        elif pattern is not None and not pattern.fullmatch(value):
            self.error(key, f"{value!r} is not valid here")
        else:
            return str(value)
        return default

    def choice(self, key: str, default: Any, *choices: str) -> Any:
        value = self.raw(key)
        if value is None:
            return default
        if value not in choices:
            self.error(key, f"expected one of {', '.join(choices)}, not {value!r}")
            return default
        return value

    def integer(self, key: str, default: Any, low: int, high: int) -> Any:
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.error(key, f"expected a whole number from {low} to {high}, not {value!r}")
            return default
        return int(value)

    def boolean(self, key: str) -> bool | None:
        value = self.raw(key)
        if value is not None and not isinstance(value, bool):
            self.error(key, f"expected true or false, not {value!r}")
            return None
        return value

    def items(self) -> list[tuple[str, Any]]:
        return list(self._data.items())

    def close(self) -> None:
        for key in self._data:
            if key not in self._known:
                self.error(key, "unknown key; remove it or correct its spelling")


def _path(root: _Section, key: str, default: Path) -> Path:
    text = root.text(key, str(default))
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or "\n" in text:
        root.error(key, f"expected an absolute path without '..', not {text!r}")
        return default
    return path


def _socket_path(section: _Section, key: str, default: Path) -> Path:
    path = _path(section, key, default)
    if len(str(path)) > SOCKET_LIMIT:
        section.error(key, f"longer than {SOCKET_LIMIT} characters, which no socket's path can be")
    return path


def _paths(root: _Section) -> Paths:
    usual = Paths()
    paths = Paths(
        _path(root, "state-dir", usual.state), _path(root, "runtime-dir", usual.runtime),
        _path(root, "cache-dir", usual.cache), _path(root, "log-dir", usual.log),
    )
    if len(str(paths.runtime)) > RUNTIME_DIR_LIMIT:
        root.error(
            "runtime-dir",
            f"longer than {RUNTIME_DIR_LIMIT} characters; socket paths would be too long",
        )
    for parent in (paths.state, *paths.state.parents):
        if parent.exists() and not os.stat(parent).st_mode & 0o001:
            root.error(
                "state-dir",
                f"{parent} cannot be traversed by postgres, bind and tftp; run: chmod o+x {parent}",
            )
    return paths


def _network(section: _Section, name: str) -> NetworkConfig:
    device = section.text("raw-device", None, _INTERFACE)
    vlan = section.integer("vlan", None, 1, 4094)
    if vlan is not None and device is None and section.raw("raw-device") is None:
        section.error("vlan", "needs raw-device")
    text = section.raw("ip")
    ip: Any = None
    if text == "dhcp" and name != WALT_NET:
        ip = "dhcp"
    elif text is None:
        if name == WALT_NET:
            section.error(
                "ip", "missing; give the server's address, as in 192.168.183.1/24"
                " (walt-server-setup --edit-conf helps)",
            )
    else:
        ip = _interface_address(section, text)
    section.close()
    return NetworkConfig(name, device, vlan, ip)


def _interface_address(section: _Section, text: Any) -> IPv4Interface | None:
    try:
        if not isinstance(text, str) or "/" not in text:
            raise ValueError
        address = IPv4Interface(text)
    except ValueError:
        section.error("ip", f"expected an address with its prefix like 192.168.183.1/24: {text!r}")
        return None
    network = address.network
    if network.prefixlen > 30:
        section.error("ip", f"a /{network.prefixlen} network leaves no address for nodes")
    elif address.ip in (network.network_address, network.broadcast_address):
        section.error("ip", f"{address.ip} is not a host address of {network}")
    elif address.ip.is_loopback or address.ip.is_multicast or address.ip == IPv4Address(0):
        section.error("ip", f"{address.ip} cannot be the address of an interface")
    else:
        return address
    return None


def _networks(section: _Section) -> tuple[dict[str, NetworkConfig], str | None]:
    namespace = section.text("namespace", None, _WORD)
    networks = {}
    for name, _ in section.items():
        if name == "namespace":
            continue
        if not _INTERFACE.fullmatch(name):
            section.raw(name)
            section.error(name, "not a valid interface name (15 characters at most)")
            continue
        networks[name] = _network(section.section(name), name)
    if WALT_NET not in networks:
        section.error(
            WALT_NET, "missing; it holds the server's address, as in ip: 192.168.183.1/24"
            " (walt-server-setup --edit-conf helps)",
        )
    bases = [
        (network.raw_device, network.vlan) for network in networks.values() if network.raw_device
    ]
    if len(set(bases)) < len(bases):
        section.error("raw-device", "two networks share an interface without different VLANs")
    section.close()
    return networks, namespace


def _registries(root: _Section, errors: list[str]) -> tuple[Registry, ...]:
    data = root.raw("registries")
    if data is None:
        return REGISTRIES
    if not isinstance(data, list):
        root.error("registries", "expected a list")
        return ()
    found = []
    for number, entry in enumerate(data):
        section = _Section(errors, f"registries[{number}]", entry)
        label = section.text("label", "", _LABEL)
        api = section.choice(
            "api", None, "docker-hub", "docker-registry-v2", "jfrog-artifactory"
        )
        if not label:
            section.error("label", "missing")
        elif label in ("walt", "docker") or (label == "hub") != (api == "docker-hub"):
            section.error("label", f"{label!r} is reserved")
        if api is None:
            section.error("api", "missing")
        host = section.text("host", "", _HOST)
        if not host and api != "docker-hub":
            section.error("host", "missing")
        found.append(Registry(
            label, api or "docker-hub", section.text("description", ""), host,
            section.integer("port", 443, 1, 65535),
            section.choice("protocol", "https", "https", "http", "https-no-verify"),
            section.choice("auth", "basic", "basic", "none"),
            section.text("repository", None, _WORD),
        ))
        section.close()
    labels = [registry.label for registry in found]
    if len(set(labels)) < len(labels):
        root.error("registries", "two registries have the same label")
    return tuple(found)


def _vpn(section: _Section) -> Vpn:
    enabled = section.boolean("enabled")
    ssh = section.text("ssh-entrypoint", None, _ENTRY_POINT)
    http = section.text("http-entrypoint", None, _HOST)
    mode = section.choice("boot-mode", None, "permissive", "enforced")
    port = section.integer("ssh-port", Vpn().ssh_port, 1, 65535)
    section.close()
    complete = bool(ssh and http and mode)
    return Vpn(True, ssh, http, mode, port) if complete and enabled is not False else Vpn()


def _database(section: _Section) -> Database:
    mode = section.choice("mode", "embedded", "embedded", "external")
    dsn = section.text("dsn", None)
    if mode == "external" and dsn is None:
        section.error("dsn", "missing; an external database needs it, as in dbname=walt host=db1")
    section.close()
    return Database(mode, dsn)


def _log_archive(section: _Section, retention: int | None) -> LogArchive | None:
    if section.is_absent:
        return None
    after = section.integer("after", LogArchive().after, 1, 36500)
    if retention is not None and after >= retention:
        section.error("after", "must be less than logs.retention: lines would be gone before")
    to = section.text("to", None)
    endpoint = section.text("endpoint", None, _ENDPOINT)
    region = section.text("region", None, _REGION)
    credentials = section.text("credentials", None)
    if credentials is not None and (
        not credentials.startswith("/") or ".." in Path(credentials).parts
    ):
        section.error("credentials", "expected the absolute path of a file, without '..'")
    directory = bucket = None
    prefix = ""
    if to is None:
        section.error("to", "missing; give a directory, or s3://BUCKET/PREFIX")
    elif to.startswith("/"):
        directory = str(_path(section, "to", Path(to)))
        if (endpoint, region, credentials) != (None, None, None):
            section.error("to", "a directory has no endpoint, region or credentials")
    else:
        store = _STORE.fullmatch(to)
        if store is None or ".." in to or "." in to.split("/"):
            section.error("to", f"expected an absolute path, or s3://BUCKET/PREFIX, not {to!r}")
        else:
            bucket, prefix = store[1], f"{store[2]}/" if store[2] else ""
    section.close()
    return LogArchive(after, directory, bucket, prefix, endpoint, region, credentials)


def _services(section: _Section) -> Services:
    http = section.section("http")
    nfsd, lldp, ptp, nbfs = (
        section.section(name) for name in ("nfsd", "lldp", "ptp", "nbfs")
    )
    usual = Services()
    found = Services(
        section.choice("runner", "children", "children", "systemd"),
        section.choice("nfs", "auto", "auto", "kernel", "ganesha"),
        nfsd.text("service-name", usual.nfsd_service_name),
        http.integer("port", 80, 1, 65535),
        http.integer("host-port", 12380, 0, 65535),
        http.integer("ui-port", 12381, 0, 65535),
        lldp.boolean("enabled") is not False,
        lldp.text("community", usual.snmp_community, _COMMUNITY),
        ptp.boolean("enabled") is not False,
        Nbfs(
            nbfs.boolean("enabled") is True, _path(nbfs, "exports-dir", usual.nbfs.exports),
            _socket_path(nbfs, "control-socket", usual.nbfs.control),
        ),
    )
    for part in (http, nfsd, lldp, ptp, nbfs, section):
        part.close()
    return found


def _images(section: _Section) -> Images:
    limits = section.raw("ulimits")
    if limits is not None and (
        not isinstance(limits, list)
        or not all(isinstance(limit, str) and _ULIMIT.fullmatch(limit) for limit in limits)
    ):
        section.error("ulimits", "expected a list like [nofile=1024:1024]")
        limits = None
    found = Images(
        section.choice("storage", "private", "private", "system"),
        section.text("runtime", None, _WORD),
        section.choice("build-isolation", "auto", "auto", "oci", "chroot"),
        tuple(limits or ()),
        _path(section, "docker-socket", Images().docker_socket),
        _git_networks(section), _git_identity(section),
    )
    section.close()
    return found


def _persist(section: _Section) -> Persist:
    text = section.text("size", None)
    section.close()
    if text is None:
        return Persist()
    found = _SIZE.fullmatch(text)
    size = int(found[1]) << _UNITS[found[2]] if found is not None else 0
    if not SMALLEST_PERSIST <= size <= LARGEST_PERSIST:
        section.error("size", "expected a size from 16M to 16T, like 512M or 4G")
        return Persist()
    return Persist(size)


def _names(section: _Section) -> tuple[str, ...]:
    names = section.raw("names")
    if names is None:
        return ()
    if not isinstance(names, list) or not all(
        isinstance(name, str) and _HOST.fullmatch(name) for name in names
    ):
        section.error("names", "expected a list of host names and addresses of this server")
        return ()
    return tuple(names)


def _git_networks(section: _Section) -> tuple[IPv4Network | IPv6Network, ...]:
    networks = section.raw("git-networks")
    try:
        if networks is not None and not isinstance(networks, list):
            raise ValueError
        return tuple(ip_network(network) for network in networks or ())
    except ValueError:
        section.error("git-networks", "expected a list of networks like 192.168.7.0/24")
        return ()


def _git_identity(section: _Section) -> Path | None:
    text = section.text("git-identity", None)
    if text is not None and not text.startswith("/"):
        section.error("git-identity", "expected the absolute path of a private key for ssh")
        return None
    return None if text is None else Path(text)


def _web_clients(section: _Section) -> tuple[IPv4Network, ...]:
    networks = section.raw("web-clients")
    if networks is None:
        return ()
    try:
        if not isinstance(networks, list):
            raise ValueError
        return tuple(IPv4Network(network) for network in networks)
    except ValueError:
        section.error("web-clients", "expected a list of networks like 192.168.7.0/24")
        return ()


def parse(text: str) -> ServerConfig:
    """Return the configuration in `text` (YAML, or JSON with # comments).

    Raises ConfigurationError with every error found, one a line.
    """
    errors: list[str] = []
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigurationError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except (TypeError, ValueError) as error:  # which ruamel.yaml itself did not expect
        raise ConfigurationError(f"not YAML that can be read: {error}") from None
    root = _Section(errors, "", data if data is not None else {})
    paths = _paths(root)
    networks, namespace = _networks(root.section("network"))
    virtual, security = root.section("virtual"), root.section("security")
    logs, boot, switches = root.section("logs"), root.section("boot"), root.section("switches")
    retention = logs.integer("retention", None, 1, 36500)
    config = ServerConfig(
        paths=paths, networks=networks, namespace=namespace,
        registries=_registries(root, errors),
        vpn=_vpn(root.section("vpn")), database=_database(root.section("database")),
        services=_services(root.section("services")), images=_images(root.section("images")),
        persist=_persist(root.section("persist")),
        accel=virtual.choice("accel", "auto", "auto", "kvm", "tcg"),
        remote_clients=security.choice("remote-clients", "tls", "tls", "open"),
        names=_names(security), web_clients=_web_clients(security),
        log_retention_days=retention,
        log_archive=_log_archive(logs.section("archive"), retention),
        reconnect_grace=boot.integer("reconnect-grace", 180, 0, 86400),
        power_saving=switches.integer("save-power-after", 7200, 0, 365 * 86400),
        reported_switches=switches.choice("reported", "propose", "propose", "convert"),
    )
    for section in (virtual, security, logs, boot, switches, root):
        section.close()
    if errors:
        raise ConfigurationError("\n".join(errors))
    return config


def load(path: Path = DEFAULT_FILE) -> ServerConfig:
    """Read and validate one file; ConfigurationError tells all that is wrong."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} does not exist; create it (walt-server-setup does) or give --config FILE"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {in_words(error)}") from None
    try:
        return parse(text)._replace(spec=path.with_name("server.spec"))
    except ConfigurationError as error:
        lines = "\n".join(f"  {line}" for line in str(error).splitlines())
        raise ConfigurationError(f"errors in {path}:\n{lines}") from None
