"""Reboots of nodes, with what a plugin may do for those that do not answer.

The hook `hard-reboot` (`walt.client.plugins`) names a callable that gets a list of MACs and
returns the list of those that it power-cycled, and a dict of texts: why it could not, by MAC.
Its attribute `method`, when it has one, is its name in logs and reports.
"""

from __future__ import annotations

from walt.client import plugins

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from walt.client.calls import Calls

    HardReboot = Callable[[list[str]], tuple[list[str], dict[str, str]]]

HARD_REBOOT = "hard-reboot"
DEFAULT_METHOD = "client hard-reboot"


def reboot(
    calls: Calls, names: str, hard_only: bool, cause: str, image: str | None = None
) -> bool:
    """Reboot nodes, onto an `image` if one is named. Tell whether all restarted.

    Those that the server leaves to us are rebooted by the hook.
    """
    hard_reboot: HardReboot | None = plugins.load(plugins.HOOKS, HARD_REBOOT)
    call, values = "cs.nodes.reboot", {"nodes": names, "hard_only": hard_only, "cause": cause}
    if image is not None:
        call, values = "cs.nodes.boot", {"nodes": names, "image": image, "cause": cause}
    if hard_reboot is None:
        return calls.call(call, **values)[b"ok"] == b"True"
    import json

    answer = calls.call(call, **values, client_reboots=True)
    ok = answer[b"ok"] == b"True"
    left = {row["mac"]: row["reason"] for row in json.loads(answer[b"left"])}
    if not left:
        return ok
    rebooted, errors = _run(hard_reboot, list(left))
    answer = calls.call(
        "cs.nodes.hard_rebooted", method=str(getattr(hard_reboot, "method", DEFAULT_METHOD)),
        cause=cause, rebooted=rebooted, errors=errors,
        reasons={mac: reason for mac, reason in left.items() if reason is not None},
    )
    return ok and answer[b"ok"] == b"True"


def _run(hard_reboot: HardReboot, macs: list[str]) -> tuple[list[str], dict[str, str]]:
    """Call the hook; a node that it says nothing about was not rebooted."""
    try:
        done, failures = hard_reboot(macs)
        errors = {mac: str(failures[mac])[:1000] for mac in macs if mac in failures}
        rebooted = [mac for mac in macs if mac in done and mac not in errors]
    except Exception as error:
        return [], dict.fromkeys(macs, f"{type(error).__name__}: {error}"[:1000])
    for mac in macs:
        if mac not in rebooted:
            errors.setdefault(mac, "the plugin said nothing about it")
    return rebooted, errors
