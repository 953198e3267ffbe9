"""What `walt node config` and `walt device config` print (spec user-surface §1.12)."""

from __future__ import annotations

from walt.client.operations.configuration import settings
from walt.common.sentences import enumerate_names

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.session import Session


def show(session: Session, devices: str, nodes_only: bool, json: bool) -> None:
    """Print the settings of a set of devices."""
    groups = settings(session, devices, nodes_only)
    if json:
        from walt.client.output import print_json

        print_json(groups)
        return
    print("\n\n\n".join(paragraph(group) for group in groups))


def paragraph(group: dict[str, Any]) -> str:
    """Return the text of one group of devices with the same settings."""
    names, category = group["names"], group["category"]
    single = len(names) == 1
    kind = category if category == "server" else category.removesuffix("s" if single else "")
    if category == "switches" and single:
        kind = "switch"
    subject = f"{kind[:1].upper()}{kind[1:]} {enumerate_names(names)}"
    if not group["settings"]:
        return f"{subject} {'has' if single else 'have'} no configuration option."
    lines = [f"{name}={shown(name, value)}" for name, value in sorted(group["settings"].items())]
    return "\n".join([
        f"{subject} {'has' if single else 'have'} the following config applied:", "", *lines
    ])


def shown(name: str, value: Any) -> str:
    """Return the value of a setting as people write it."""
    if value is None:
        return "none" if name == "boot.timeout" else "<unspecified>"
    return str(value).lower() if isinstance(value, bool) else str(value)
