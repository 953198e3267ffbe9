"""What a client of PTP says of itself on a node: ptp4l of linuxptp, or ptpd."""

from __future__ import annotations

import re
import shlex

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAIN = 42  # of the platform's master; pmc gets no answer from a ptp4l of another one
SOCKET = "/var/run/ptp4l"  # ptp4l(8), uds_address
STATUS = ("/var/run/ptpd2.status", "/run/ptpd.status")  # ptpd2.conf(5), global:status_file
CONFIG = ("/etc/ptpd.conf", "/etc/ptpd2.conf")
MOST = 4000  # characters of an answer
NANOSECONDS = 1e9
_PTP4L = {
    "state": re.compile(r"^\s+portState\s+([A-Z_]{1,30})\s*$", re.MULTILINE),
    "master": re.compile(r"^\s+gmIdentity\s+([0-9a-f.]{1,30})\s*$", re.MULTILINE),
    "offset": re.compile(r"^\s+offsetFromMaster\s+(-?[0-9.]{1,25})\s*$", re.MULTILINE),
    "delay": re.compile(r"^\s+meanPathDelay\s+(-?[0-9.]{1,25})\s*$", re.MULTILINE),
}
_PTPD = {
    "state": re.compile(r"^Port state +: +PTP_([A-Z_]{1,30})\s*$", re.MULTILINE),
    "master": re.compile(r"^Best master ID +: +([0-9a-f]{1,30})", re.MULTILINE),
    "offset": re.compile(r"^Offset from Master +: +(-?[0-9.]{1,25}) s", re.MULTILINE),
    "delay": re.compile(r"^Mean Path Delay +: +(-?[0-9.]{1,25}) s", re.MULTILINE),
}


def question(
    socket: str = SOCKET, status: Sequence[str] = STATUS, config: Sequence[str] = CONFIG
) -> str:
    """Return what a shell of a node does to tell the state of its client, if there is one."""
    return (
        f"if [ -S {shlex.quote(socket)} ] && command -v pmc > /dev/null; then\n"
        f"    for domain in {DOMAIN} 0; do\n"
        f"        told=$(pmc -s {shlex.quote(socket)} -u -b 0 -d $domain 'GET CURRENT_DATA_SET'"
        " 'GET PORT_DATA_SET' 'GET TIME_STATUS_NP' 2> /dev/null | head -c 4000)\n"
        "        case $told in *RESPONSE*) printf '%s\\n' \"$told\"; break ;; esac\n"
        "    done\n"
        "else\n"
        f"    for file in {shlex.join(status)} $(sed -n 's/^global:status_file *= *//p'"
        f" {shlex.join(config)} 2> /dev/null); do\n"
        "        if [ -s \"$file\" ]; then head -c 4000 \"$file\"; break; fi\n"
        "    done\n"
        "fi\n"
    )


def state_of(answer: str) -> dict[str, str | float] | None:
    """Return what a client tells; None where there is none, or none that is understood.

    `client` is ptp4l or ptpd; `state` that of its port, such as slave; `offset`, how far the clock
    is ahead of its master's, and `delay` on the way are in seconds; `master` is its identity.
    """
    for client, patterns, unit in (("ptp4l", _PTP4L, NANOSECONDS), ("ptpd", _PTPD, 1.0)):
        found = {name: pattern.search(answer[:MOST]) for name, pattern in patterns.items()}
        if found["state"] is None:
            continue
        told: dict[str, str | float] = {"client": client}
        for name, match in found.items():
            if match is None:
                continue
            try:
                told[name] = match[1].lower() if name in ("state", "master") \
                    else float(match[1]) / unit
            except ValueError:
                continue  # it has two points: this is no number
        return told
    return None
