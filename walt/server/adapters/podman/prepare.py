"""What the server writes into a mounted image (spec node-protocols §4.4).

Blocking code for workers, idempotent: a tree that survived a crash is prepared again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from walt.common.errors import CommandFailed, WaltError, in_words
from walt.common.sshkeys import without_user_keys
from walt.server.adapters.podman import capabilities, sandbox
from walt.server.adapters.podman.boot_links import BootLinks
from walt.server.adapters.podman.imageroot import ImageRoot

PUBLIC_SCRIPTS = (
    "walt-env", "walt-log-echo", "walt-log-cat", "walt-log-tee", "walt-echo", "walt-cat",
    "walt-tee", "walt-init", "walt-report-lldp-neighbor",
)
INTERNAL_SCRIPTS = (
    "walt-rpc", "walt-timeout", "walt-clock-sync", "walt-notify-bootup", "walt-fs-watchdog",
    "walt-netconsole", "walt-user-keys", "walt-net-service", "walt-net-service-handler",
    "walt-tar-send", "walt-boot-modes", "walt-init-rootfs", "walt-init-rootfs-main",
    "walt-init-finalfs",
    "walt-init-nbd", "walt-script-common", "walt-log-script", "walt-dump-diff-tar",
)
TEMPLATES = ("walt-env",)
HOSTS = b"""127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
FEATURE_TIMEOUT = 120.0
LOCALTIME = "/etc/localtime"
DEFAULT_SPEC = b'{"features": ["ptp"]}\n'  # of a server without server.spec
MAX_SPEC = 64 * 1024  # bytes
MAX_SPEC_DEPTH = 16  # the stream and the document count
_PLACEHOLDER = re.compile(rb"%(?:%|\((\w+)\)s)")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Preparation:
    """What goes into the tree: template values, keys, server.spec.

    `keys` is the directory of the nodes' common host keys, `authorized_key` a
    public key in one line, `server_spec` the path of the server's file, if it exists.
    """

    values: Mapping[str, str]
    keys: Path
    authorized_key: str
    server_spec: Path


def expand(text: bytes, values: Mapping[str, str]) -> bytes:
    """Replace `%(name)s` by its value and `%%` by `%`; anything else stays as it is."""

    def one(match: re.Match[bytes]) -> bytes:
        name = match[1]
        if name is None:
            return b"%"
        value = values.get(name.decode())
        return match[0] if value is None else value.encode()

    return _PLACEHOLDER.sub(one, text)


def prepare(root_path: Path, todo: Preparation, say: Say) -> list[str]:
    """Prepare the tree at `root_path`; return warnings, one for each step that failed."""
    warnings: list[str] = []
    with ImageRoot(root_path) as root:
        for name, step in (
            ("ssh keys", lambda: _ssh_keys(root, todo)),
            ("authorized key", lambda: _authorized_key(root, todo)),
            ("names", lambda: _names(root, todo)), ("scripts", lambda: _scripts(root, todo)),
            ("timezone", lambda: _timezone(root, todo)), ("ptp", lambda: _ptp(root, todo)),
            ("image spec", lambda: warnings.extend(_image_spec(root, root_path, todo, say))),
            # Commands of the image were run above: what is made safe comes after them.
            ("file capabilities", lambda: capabilities.replace(root, say)),
            ("boot links", lambda: _boot_links(root)),
        ):
            try:
                step()
            except (OSError, ValueError) as error:
                warnings.append(f"{name}: {in_words(error)}")
    return warnings


def _ssh_keys(root: ImageRoot, todo: Preparation) -> None:
    for directory in ("/etc/ssh", "/etc/dropbear"):
        if root.kind(directory) == "link":
            root.remove(directory)
    for directory, name, mode in (
        ("/etc/ssh", "ssh_host_ecdsa_key", 0o600),
        ("/etc/ssh", "ssh_host_ecdsa_key.pub", 0o644),
        ("/etc/dropbear", "dropbear_ecdsa_host_key", 0o600),
    ):
        root.write(f"{directory}/{name}", (todo.keys / name).read_bytes(), mode)


def _authorized_key(root: ImageRoot, todo: Preparation) -> None:
    path = "/root/.ssh/authorized_keys"
    if root.kind("/root/.ssh") is None:
        with root.directory("/root/.ssh", create=True) as fd:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    present = root.read(path) if root.kind(path) == "file" else b""
    present = without_user_keys(present)
    key = todo.authorized_key.strip().encode()
    if key not in (line.strip() for line in present.splitlines()):
        if present and not present.endswith(b"\n"):
            present += b"\n"
        present += key + b"\n"
    root.write(path, present, 0o600)


def _names(root: ImageRoot, todo: Preparation) -> None:
    root.write("/etc/hosts", HOSTS)
    if root.kind("/etc/hostname") == "file":
        root.remove("/etc/hostname")
    resolver = f"domain walt\nsearch walt.\nnameserver {todo.values['server_ip']}\n".encode()
    path = "/etc/resolv.conf"
    known = root.kind(path) == "file" and root.read(path) == resolver
    if not known:
        if root.kind(path) in ("file", "link") and root.kind(f"{path}.saved") is None:
            root.rename(path, "resolv.conf.saved")
        root.write(path, resolver)
    root.remove("/usr/local/bin/walt-echo")


def _boot_links(root: ImageRoot) -> None:
    try:
        BootLinks(root).confine()
    except OSError as error:
        # With links that nobody looked at, the image must not be served.
        raise CommandFailed(
            f"the links below /boot of the image cannot be checked: {in_words(error)}"
        ) from None


def _scripts(root: ImageRoot, todo: Preparation) -> None:
    source = resources.files("walt.node")
    for directory, names in (
        ("/bin", PUBLIC_SCRIPTS), ("/bin/_walt_internal_", INTERNAL_SCRIPTS),
    ):
        for name in names:
            text = source.joinpath(name).read_bytes()
            if name in TEMPLATES:
                text = expand(text, todo.values)
            root.write(f"{directory}/{name}", text, 0o755)


def _timezone(root: ImageRoot, todo: Preparation) -> None:
    try:
        target = os.readlink(LOCALTIME)
    except OSError:
        return  # the server has no time zone of its own to give
    target = os.path.normpath(os.path.join("/etc", target))
    if root.kind("/etc/localtime") in (None, "link") and root.exists(target):
        root.link("/etc/localtime", target)


def _ptp(root: ImageRoot, todo: Preparation) -> None:
    """Force what the server's PTP master needs in a configuration of ptpd2."""
    path = "/etc/ptpd.conf"
    if root.kind(path) != "file":
        return
    text = root.read(path).decode(errors="surrogateescape")
    if "ptpengine:" in text:
        fixed = _set_option(text, "ptpengine:ip_mode", lambda value: "hybrid")
        fixed = _set_option(
            fixed, "ptpengine:log_delayreq_interval",
            lambda value: value if re.fullmatch(r"[0-9]+", value) and int(value) >= 3 else "3",
        )
        root.write(path, fixed.encode(errors="surrogateescape"), root.mode(path))


def _set_option(text: str, name: str, change: Callable[[str], str]) -> str:
    """Change the value of `name = value` lines; add the line when there is none."""
    pattern = re.compile(rf"^([ \t]*{re.escape(name)}[ \t]*=[ \t]*)(\S*)", re.MULTILINE)
    fixed, count = pattern.subn(lambda match: match[1] + change(match[2]), text)
    if not count:
        fixed = fixed.rstrip("\n") + f"\n{name} = {change('')}\n"
    return fixed


def load_spec(data: bytes) -> dict[str, Any]:
    """Return a spec file (YAML, or JSON with # comments) as a dict; ValueError if it is none.

    All its leaves are texts. Aliases and anchors of YAML are refused: by them, a few lines
    stand for as much as one likes.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(data) > MAX_SPEC:
        raise ValueError(f"it has more than {MAX_SPEC >> 10} KiB")
    try:
        text = data.decode()
        _check_events(YAML(typ="base", pure=True).parse(text))
        spec = YAML(typ="base", pure=True).load(text)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"unreadable: {str(error).splitlines()[0]}") from None
    except TypeError:  # a mapping in a key, which ruamel.yaml does not expect
        raise ValueError("unreadable: a key of a mapping is not text") from None
    if not spec:
        return {}
    if not isinstance(spec, dict):
        raise ValueError("a mapping is expected")
    return spec


def _check_events(events: Iterable[Any]) -> None:
    """Raise ValueError for aliases, and for what is nested too deeply."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        if getattr(event, "anchor", None):
            raise ValueError("anchors and aliases of YAML are refused")
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if depth > MAX_SPEC_DEPTH:
            raise ValueError("it is nested too deeply")


def _image_spec(root: ImageRoot, path: Path, todo: Preparation, say: Say) -> list[str]:
    try:
        text = todo.server_spec.read_bytes()
    except FileNotFoundError:
        text = DEFAULT_SPEC
    root.write("/etc/walt/server.spec", text)
    server = load_spec(text)
    if root.kind("/etc/walt/image.spec") is None:
        return []
    spec = load_spec(root.read(root.real("/etc/walt/image.spec")))
    warnings = _templates(root, spec.get("templates") or [], todo)
    wanted = server.get("features") or []
    features = spec.get("features") or {}
    if isinstance(features, dict):
        for name, command in features.items():
            if name not in wanted:
                continue
            if isinstance(command, str):
                warnings += _feature(path, name, command, say)
            else:
                warnings.append(f"feature {name}: its command must be a text")
    return warnings


def _templates(root: ImageRoot, names: Any, todo: Preparation) -> list[str]:
    warnings = []
    for name in names if isinstance(names, list) else []:
        if not isinstance(name, str):
            warnings.append("a template must be the name of a file")
            continue
        try:
            real = root.real(name)
            root.write(real, expand(root.read(real), todo.values), root.mode(real))
        except (OSError, ValueError) as error:
            warnings.append(f"template {name}: {in_words(error)}")
    return warnings


def _feature(path: Path, name: str, command: str, say: Say) -> list[str]:
    """Run the image's command for a feature, inside the image."""
    try:
        status, words = sandbox.run(path, command, FEATURE_TIMEOUT)
    except WaltError as error:
        return [f"feature {name}: {error}"]
    for line in words.splitlines():
        say(f"{name}: {line}")
    return [] if status == 0 else [f"feature {name}: status {status}"]
