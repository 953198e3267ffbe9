"""Settings of devices (spec user-surface §1.12)."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.calls import Calls


def settings(calls: Calls, devices: str, nodes_only: bool) -> list[dict[str, Any]]:
    """Return the settings of a set of devices, those with the same ones together."""
    groups: list[dict[str, Any]] = calls.json(
        "cs.devices.config", "groups", devices=devices, nodes_only=nodes_only
    )
    return groups


def change(calls: Calls, devices: str, words: list[str], nodes_only: bool) -> None:
    """Apply name=value words; the server tells `Done.`"""
    calls.call("cs.devices.set_config", devices=devices, settings=words, nodes_only=nodes_only)
