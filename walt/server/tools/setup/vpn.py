"""What the VPN needs of a Debian: the account of its sshd (spec server §8.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from walt.server.adapters.vpn.account import ACCOUNT, HOME
from walt.server.adapters.vpn.authority import CA_KEY
from walt.server.tools.setup.machine import Machine


@dataclass(frozen=True)
class VpnStep:
    """The account, with its empty home; the authority of a WalT before version 10."""

    machine: Machine
    state: Path
    title: str = "VPN"

    def _former(self) -> bool:
        """Tell whether an authority is where it was before version 10, and nowhere else."""
        return (
            self.machine.at(self.state / "vpn" / CA_KEY).exists()
            and not self.machine.at(self.state / "vpn-server" / CA_KEY).exists()
        )

    def _account(self) -> bool:
        return self.machine.succeeds("getent", "passwd", ACCOUNT)

    def lacks(self) -> list[str]:
        """See Step."""
        found = [] if self._account() else [f"account {ACCOUNT} is missing"]
        if not self.machine.at(HOME).is_dir():
            found.append(f"{HOME} is missing")
        if self._former():
            found.append(f"the authority of the VPN is in {self.state / 'vpn'}")
        return found

    def apply(self) -> None:
        """See Step."""
        if not self._account():
            self.machine.run(
                "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", HOME,
                "--shell", "/bin/sh", ACCOUNT,
            )
        # Root's: sessions find it, and write nothing there.
        self.machine.at(HOME).mkdir(mode=0o755, parents=True, exist_ok=True)
        if self._former():
            target = self.machine.at(self.state / "vpn-server")
            target.mkdir(mode=0o711, exist_ok=True)
            for name in (f"{CA_KEY}.pub", CA_KEY):
                former = self.machine.at(self.state / "vpn" / name)
                if former.exists():
                    former.rename(target / name)

    def undo(self) -> None:
        """All of it stays: keys of boards depend on it."""
