"""Commands that a node runs once, whatever happens to the connection or to the server.

A node keeps what it was told to run, with its output and its exit status, in files that are
named by who asked: asking again under the same name follows what runs, it starts nothing.
The files are lost when the node boots; what was lost is told, and never run again.
"""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import dataclass

from walt.client.errors import Failure, Refused
from walt.client.exceptions import TimeoutException
from walt.client.experiment.channels import NotBegun
from walt.client.scripting.running import TooMuch
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from walt.client.experiment.channels import Shells
    from walt.client.scripting.running import Result

PLACE = "/run/walt-experiments"  # on the node: its RAM
ID = re.compile(r"[a-z0-9-]{1,80}")
LOST, ENDED_BY_US = 125, 124  # statuses of the script below, told by a line on its error output
MARK = "walt-experiment:"
TRY_AGAIN = 1.0  # seconds between two attempts to reach the server
ENDS = 30.0  # seconds for a node to end a command that took too long
HELD = 5.0  # seconds after which a connection that was lost was one
# $1: a file, with whose name those of others begin; $2: start or follow; $3: seconds; $4: what
# comes before the command; $5: the command, or a script with its interpreter. A shell that is its
# own session goes on when the connection ends; its status is one short write. Programs take ten
# milliseconds each to start on an emulated node: the shell does what it can by itself.
_SCRIPT = f"""\
it=$1; mode=$2; limit=$3
if [ "$mode" = start ] && {{ [ -d "${{it%/*}}" ] || mkdir -p "${{it%/*}}"; }} \\
        && set -C && {{ true > "$it"; }} 2>/dev/null; then
    printf '%s\\n' "$5" > "$it.command"
    case $5 in
        '#!'*) chmod +x "$it.command"; last="exec $it.command" ;;
        *'$$'* | *'$0'* | *'${{$'* | *'${{0'* | *PPID*) last="exec sh $it.command" ;;
        *) last=". $it.command" ;;
    esac
    printf '%s\\n%s\\n' "$4" "$last" > "$it.start"
    run="echo \\$\\$ > $it.pid; (. $it.start) > $it.output 2> $it.error < /dev/null
        echo \\$? > $it.status"
    session=
    if command -v setsid > /dev/null; then session=setsid; fi
    $session sh -c "$run" > /dev/null 2>&1 < /dev/null &
    wait $!  # whoever asks ends it, when it takes too long
    status=$?
    [ -s "$it.status" ] || echo "$status" > "$it.status"  # it ended its whole session
fi
if [ ! -e "$it" ]; then echo "{MARK} lost" >&2; exit {LOST}; fi
end=
while [ ! -s "$it.status" ]; do
    read -r up rest < /proc/uptime
    [ -n "$end" ] || end=$((${{up%.*}} + limit))
    if [ "${{up%.*}}" -gt "$end" ]; then
        pid=$(cat "$it.pid"); kill -KILL "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
        cat "$it.output"; cat "$it.error" >&2; echo "{MARK} late" >&2; exit {ENDED_BY_US}
    fi
    sleep 0.05 2>/dev/null || sleep 1  # an old busybox knows whole seconds
done
if [ -s "$it.output" ]; then cat "$it.output"; fi
if [ -s "$it.error" ]; then cat "$it.error" >&2; fi
read -r status < "$it.status"
echo "{MARK} ended" >&2; exit "$status"
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: `ended` with its status, `timeout`, or `unknown` when its node lost it.

    `seconds` are those of this machine.
    """

    outcome: str
    status: int
    output: str
    error: str
    seconds: float


def attached(before: str, command: str, directory: str) -> str:
    """Return a text that runs a command, or a script with its interpreter, as long as one waits.

    `before` is a `prelude`, `directory` a place of its own on the node.
    """
    place = shlex.quote(directory)
    return (
        f"mkdir -p {place} || exit {LOST}\n"
        f"printf '%s\\n' {shlex.quote(command)} > {place}/command\n{before}\n"
        + (f"chmod +x {place}/command; exec {place}/command" if command.startswith("#!")
           else f"exec sh {place}/command")
    )


def prelude(
    environment: Mapping[str, str], directory: str, ahead: Iterable[str] = ()
) -> str:
    """Return what a shell does before a command: its variables and its directory.

    Where that is not there yet, directories that are `ahead` are made with it, at the price of one.
    """
    exports = "".join(
        f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()
    )
    place = shlex.quote(directory)
    there = f"{{ mkdir -p {shlex.join([directory, *ahead])} && cd {place}; }}"
    return f"{exports}cd {place} 2>/dev/null || {there} || exit {LOST}"


def perform(
    shells: Shells, node: str, identity: str, before: str, command: str, limit: float, *,
    follow: bool = False, patience: float = 120.0, again: float = TRY_AGAIN, held: float = HELD,
) -> Outcome:
    """Run a command of the shell on a node, once, after a `prelude`; return how it ended.

    `identity` names this run of it, `limit` is in seconds. With `follow` it is not started. Server
    or node may be away for `patience` seconds, then its outcome is unknown; `again` is the pause
    between two attempts, and one that lasted `held` was a connection. Raises Refused.
    """
    if not ID.fullmatch(identity):
        raise ValueError(identity)
    began, mode, away = time.monotonic(), "follow" if follow else "start", 0.0
    while True:
        asked = time.monotonic()
        left = limit - (time.monotonic() - began)
        seconds = max(1, round(left))
        # In the shell that is there: each program more that starts takes time on a slow node.
        words = shlex.join([f"{PLACE}/{identity}", mode, str(seconds), before, command])
        text = f"set -- {words}\n{_SCRIPT}"
        try:
            result = shells.run(node, text, max(left, 1.0) + (ENDS if mode == "follow" else 0.0))
            found = _outcome(result, time.monotonic() - began)
            if found is not None:
                return found
            reason, begun = result.error.strip()[-500:], True
        except TimeoutException:
            if mode == "follow":
                return Outcome("timeout", -1, "", "", time.monotonic() - began)
            mode = "follow"  # which ends it, and tells what it printed
            continue
        except NotBegun as error:
            reason, begun = in_words(error), mode == "follow"
        except TooMuch as error:
            return Outcome("ended", -1, "", str(error), time.monotonic() - began)
        except (Failure, OSError) as error:
            if isinstance(error, Refused) and error.code not in ("UNAVAILABLE", "CONFLICT"):
                raise
            reason, begun = in_words(error), True
        # It may have run: from now on it is followed.
        mode, now = "follow" if begun else mode, time.monotonic()
        if not away or now - asked > held:
            away = now
        if now - away >= patience:
            return Outcome("unknown", -1, "", f"nobody answered: {reason}", now - began)
        time.sleep(again)


def _outcome(result: Result, seconds: float) -> Outcome | None:
    """Return how a command ended, None where the node does not say so."""
    error, found, mark = result.error.rstrip("\n").rpartition(MARK)
    if not found:
        return None
    outcome = {" ended": "ended", " late": "timeout", " lost": "unknown"}.get(mark)
    if outcome is None:
        return None
    status = result.status if outcome == "ended" else -1
    return Outcome(outcome, status, result.output, error, seconds)
