"""Settings of devices: what applies where, what is accepted (spec server §3.7).

A change is checked as a whole before anything is stored: `plan` returns the new
devices, or raises Invalid and nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Network
from typing import Any, NamedTuple

from walt.common.errors import Invalid
from walt.common.machines import (
    DEFAULT_CORES,
    DEFAULT_RAM,
    parse_boot_delay,
    parse_cores,
    parse_disks,
    parse_networks,
    parse_ram,
)
from walt.common.sentences import enumerate_names, meant
from walt.server.domain.devices.model import (
    NETSETUP_LAN,
    NETSETUP_NAT,
    SWITCH_PREFIXES,
    Device,
)
from walt.server.domain.network.expose import parse_expose

UNSET = object()
HELP = "See `walt help show device-config`."
BOOT_TIMEOUT = 180  # seconds
EMULATED_BOOT_TIMEOUT = 720  # seconds: there may be other emulated machines beside it
MOST_CORES = 4  # of a virtual machine, for each processor of the server

Parser = Callable[[str], Any]


def _boolean(text: str) -> bool:
    word = text.lower()
    if word not in ("true", "false"):
        raise Invalid("expected true or false")
    return word == "true"


def _whole(low: int, high: int = 10**9) -> Parser:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise Invalid(f"expected a whole number, at least {low}")
        return int(text)

    return parse


def _netsetup(text: str) -> int:
    try:
        return {"LAN": NETSETUP_LAN, "NAT": NETSETUP_NAT}[text.upper()]
    except KeyError:
        raise Invalid("expected LAN or NAT") from None


def _boot_timeout(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit()):
        raise Invalid("expected `none` or a number of seconds, as in 180")
    if int(text) < 60:
        raise Invalid("a boot time-out below 60 seconds would reboot nodes that are booting")
    return int(text)


def _checked(parse: Callable[[str], Any]) -> Parser:
    """Return a parser that keeps the text, once `parse` accepted it."""

    def kept(text: str) -> str:
        parse(text)
        return text

    return kept


def _cores(text: str) -> int:
    _whole(1)(text)
    return parse_cores(text)


def _switch_type(text: str) -> str:
    if text != "switch":
        raise Invalid("expected `switch`: no other type can be given by hand")
    return text


def _community(text: str) -> str:
    if not text or len(text) > 255 or not text.isprintable():
        raise Invalid("expected a printable text")
    return text


def _secret(text: str) -> str:
    if not 8 <= len(text) <= 255 or not text.isprintable():
        raise Invalid("expected a printable text of 8 characters or more")
    return text


def _one_of(*words: str) -> Parser:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise Invalid(f"expected {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parse


class Setting(NamedTuple):
    """One setting: the category of devices it applies to, its default, how text is read."""

    name: str
    category: str
    default: Any
    parse: Parser
    reboot: bool = False


SETTINGS: dict[str, Setting] = {setting.name: setting for setting in (
    Setting("netsetup", "walt-net devices", NETSETUP_LAN, _netsetup, True),
    Setting("expose", "walt-net devices", "none", _checked(parse_expose)),
    Setting("boot.retries", "nodes", 9, _whole(0, 1000)),
    Setting("boot.timeout", "nodes", BOOT_TIMEOUT, _boot_timeout),
    Setting("kexec.allow", "nodes", True, _boolean),
    Setting("mount.persist", "nodes", True, _boolean, True),
    Setting("netconsole", "nodes", False, _boolean, True),
    Setting("ram", "virtual nodes", DEFAULT_RAM, _checked(parse_ram), True),
    Setting("cpu.cores", "virtual nodes", DEFAULT_CORES, _cores, True),
    Setting("disks", "virtual nodes", "none", _checked(parse_disks), True),
    Setting("networks", "virtual nodes", "walt-net", _checked(parse_networks), True),
    Setting("boot.delay", "virtual nodes", "random", _checked(parse_boot_delay), True),
    Setting("type", "unknown devices", "unknown", _switch_type),
    Setting("snmp.version", "switches", UNSET, _whole(1, 3)),
    Setting("snmp.community", "switches", UNSET, _community),
    Setting("snmp.user", "switches", UNSET, _community),
    Setting("snmp.auth", "switches", UNSET, _secret),
    Setting("snmp.priv", "switches", UNSET, _secret),
    Setting("snmp.auth.protocol", "switches", "sha", _one_of("md5", "sha", "sha256", "sha512")),
    Setting("snmp.priv.protocol", "switches", "aes", _one_of("des", "aes", "aes256")),
    Setting("lldp.explore", "switches", False, _boolean),
    Setting("poe.reboots", "switches", False, _boolean),
)}

# Once set they are never shown again.
SECRETS = frozenset(("snmp.auth", "snmp.priv"))
HIDDEN = "<set>"

# Most specific last: the main category of a device is the last one it belongs to.
CATEGORIES: dict[str, tuple[Callable[[Device, IPv4Network], bool], str]] = {
    "devices": (lambda device, subnet: True, ""),
    "walt-net devices": (
        lambda device, subnet: device.type != "server" and device.in_network(subnet),
        "it is the server, or has no address in walt-net",
    ),
    "server": (lambda device, subnet: device.type == "server", "it is not the server"),
    "nodes": (lambda device, subnet: device.is_node, "it is not a node"),
    "unknown devices": (
        lambda device, subnet: device.type == "unknown", "its type is known already"
    ),
    "switches": (lambda device, subnet: device.type == "switch", "it is not a switch"),
    "virtual nodes": (
        lambda device, subnet: device.is_node and device.virtual, "it is not a virtual node"
    ),
}


def main_category(device: Device, subnet: IPv4Network) -> str:
    """Return the most specific category of a device."""
    return [name for name, (rule, _) in CATEGORIES.items() if rule(device, subnet)][-1]


def effective(device: Device, subnet: IPv4Network, *, emulated: bool = False) -> dict[str, Any]:
    """Return all settings that apply to a device: defaults, overridden by what was set.

    `emulated` tells whether its processor is.
    """
    found = dict(_defaults(tuple([rule(device, subnet) for rule, _ in CATEGORIES.values()])))
    if emulated and "boot.timeout" in found:
        found["boot.timeout"] = EMULATED_BOOT_TIMEOUT
    for name, value in device.conf.items():
        if name in found:
            found[name] = None if value is UNSET else value
    return found


@lru_cache(maxsize=64)
def _defaults(applies: tuple[bool, ...]) -> Mapping[str, Any]:
    """Return the defaults of what applies to devices of some categories, in their order."""
    categories = {name for name, apply in zip(CATEGORIES, applies, strict=True) if apply}
    return {
        setting.name: None if setting.default is UNSET else setting.default
        for setting in SETTINGS.values() if setting.category in categories
    }


def settings_of(device: Device, subnet: IPv4Network, *, emulated: bool) -> dict[str, Any]:
    """Return the settings that apply to a device, as programs get them.

    Booleans and numbers as such, LAN or NAT, null for what is not set (and for no boot.timeout).
    """
    found = effective(device, subnet, emulated=emulated)
    if "netsetup" in found:
        found["netsetup"] = "NAT" if found["netsetup"] == NETSETUP_NAT else "LAN"
    for name in SECRETS & found.keys():
        found[name] = HIDDEN if found[name] is not None else None
    return found


def parse_words(words: Sequence[str]) -> dict[str, Any]:
    """Return the values of `name=value` words. Raises Invalid, naming the wrong one."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        setting = SETTINGS.get(name)
        if not equals:
            raise Invalid(
                f"{word[:80]!r} is not a setting; write name=value (and several devices as one"
                f" word with commas). {HELP}"
            )
        if setting is None:
            raise Invalid(f"there is no setting named {name[:80]!r}; {meant(name, SETTINGS)}{HELP}")
        if name in values:
            raise Invalid(f"{name} is given twice")
        try:
            values[name] = setting.parse(text)
        except Invalid as error:
            shown = HIDDEN if name in SECRETS else text[:80]
            raise Invalid(f"{name}={shown}: {error}. {HELP}") from None
    return values


def plan(
    devices: Sequence[Device], values: Mapping[str, Any], subnet: IPv4Network
) -> list[Device]:
    """Return the devices with these settings. Raises Invalid; all are checked first."""
    changed = [_converted(device, values) for device in devices]
    for name in values:
        if name == "type":
            continue
        rule, reason = CATEGORIES[SETTINGS[name].category]
        wrong = [device.name for device in changed if not rule(device, subnet)]
        if wrong:
            raise Invalid(
                f"{name} does not apply to {enumerate_names(wrong)}: {reason}. {HELP}"
            )
    if values.get("expose", "none") != "none" and len(devices) > 1:
        raise Invalid("expose applies to one device at a time: server ports are unique")
    settings = {name: value for name, value in values.items() if name != "type"}
    # Thousands have the same settings: they have them in common.
    before = {id(device.conf): device.conf for device in changed}
    after = {which: {**conf, **settings} for which, conf in before.items()}
    result = [replace(device, conf=after[id(device.conf)]) for device in changed]
    for device in result:
        _check_dependencies(device)
    return result


def check_machine(values: Mapping[str, Any], memory: int, processors: int) -> None:
    """Raise Invalid when a machine of this size would not start, or not boot in any time.

    `memory` of the server is in MiB.
    """
    if values.get("cpu.cores", 0) > MOST_CORES * processors:
        raise Invalid(
            f"cpu.cores={values['cpu.cores']}: the server has {processors} processors, and a"
            f" machine may have {MOST_CORES * processors} here. {HELP}"
        )
    if "ram" in values and parse_ram(values["ram"]) > memory:
        raise Invalid(
            f"ram={values['ram']}: the server has {memory} MiB of memory, swap space included."
            f" {HELP}"
        )


def _converted(device: Device, values: Mapping[str, Any]) -> Device:
    if "type" not in values:
        return device
    if device.type != "unknown":
        raise Invalid(f"the type of {device.name} is known already: {device.type}. {HELP}")
    return as_switch(device)


def as_switch(device: Device) -> Device:
    """Return a device of unknown type as a switch, with the model that its address tells."""
    model = "netgear" if device.mac.startswith(SWITCH_PREFIXES) else None
    return replace(device, type="switch", model=model)


def _check_dependencies(device: Device) -> None:
    conf = device.conf
    needed: tuple[str, ...] = ("snmp.community",)
    if conf.get("snmp.version") == 3:
        needed = ("snmp.user", "snmp.auth", "snmp.priv")
    if conf.get("lldp.explore") and not {"snmp.version", *needed} <= conf.keys():
        raise Invalid(
            f"lldp.explore=true on {device.name} needs"
            f" {', '.join(('snmp.version', *needed[:-1]))} and {needed[-1]}"
            " (they may be given in the same command)"
        )
    if conf.get("poe.reboots") and not conf.get("lldp.explore"):
        raise Invalid(
            f"poe.reboots=true on {device.name} needs lldp.explore=true"
            " (it may be given in the same command)"
        )


def needs_reboot(values: Mapping[str, Any]) -> bool:
    """Tell whether one of these settings takes effect at the next boot only."""
    return any(SETTINGS[name].reboot for name in values)


class Groups:
    """Devices of one category with the same settings together, for display (S-075).

    `emulated` tells whether the processor of a device is.
    """

    def __init__(self, subnet: IPv4Network, emulated: Callable[[Device], bool]) -> None:
        self._subnet = subnet
        self._emulated = emulated
        self._names: dict[tuple[str, tuple[tuple[str, Any], ...]], list[str]] = {}

    def add(self, device: Device) -> None:
        """Add a device."""
        found = settings_of(device, self._subnet, emulated=self._emulated(device))
        key = main_category(device, self._subnet), tuple(sorted(found.items()))
        self._names.setdefault(key, []).append(device.name)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each group."""
        return [
            {"category": category, "names": sorted(names), "settings": dict(settings)}
            for (category, settings), names in self._names.items()
        ]
