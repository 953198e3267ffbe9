"""`walt-vpn-tunnel`: the end of the tunnel that is away from the server.

    walt-vpn-tunnel --device NAME --mac MAC [--once] SSH…

Makes a TAP device and carries its frames over the standard input and output of a command,
`ssh … walt-vpn@ENTRYPOINT`. A tunnel that lasted for a minute is opened again when it breaks, for
as long as a node waits for a restarted server; otherwise this fails, as boards do (spec
node-protocols §9.5): who cannot get in has to start anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

from walt.common.errors import in_words
from walt.common.ethernet import open_tap
from walt.vpn.relay import relay

LASTED = 60.0  # seconds after which a tunnel that broke is opened again
PATIENCE = 180.0  # seconds in which that is tried: those of boot.reconnect-grace
PAUSE = 2.0  # seconds between two tries
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
USAGE = "Usage: walt-vpn-tunnel --device NAME --mac MAC [--once] SSH-COMMAND…"


def carry(tap: int, command: list[str]) -> float:
    """Carry frames by a command until it ends; return how many seconds it lasted."""
    begun = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
        assert ssh.stdin is not None
        assert ssh.stdout is not None
        end = relay(tap, ssh.stdout.fileno(), ssh.stdin.fileno())
        print(f"walt-vpn-tunnel: {end.reason}", file=sys.stderr, flush=True)
        ssh.kill()
    return time.monotonic() - begun


def main() -> None:
    """Run the command line: ends with status 1 when the tunnel cannot be opened, 2 for usage."""
    words, options, once = sys.argv[1:], {}, False
    while words and words[0].startswith("--"):
        word = words.pop(0)
        if word == "--once":
            once = True
        elif word in ("--device", "--mac") and words:
            options[word] = words.pop(0)
        else:
            sys.exit(f"{USAGE}\n{word} is not known here")
    device, mac = options.get("--device", ""), options.get("--mac", "").lower()
    if not words or not device or not _MAC.fullmatch(mac):
        print(USAGE, file=sys.stderr)
        raise SystemExit(2)
    try:
        tap = open_tap(device)
        for change in (["address", mac], ["up"]):
            subprocess.run(["ip", "link", "set", "dev", device, *change], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"walt-vpn-tunnel: no device {device}: {in_words(error)}")
    limit = 0.0
    while True:
        if carry(tap, words) >= LASTED:
            limit = time.monotonic() + PATIENCE
        if once or time.monotonic() >= limit:
            raise SystemExit(1)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
