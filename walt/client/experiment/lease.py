"""Whether the nodes of a run are still its own: what is done to them asks first."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from walt.client.experiment.channels import Shells
    from walt.client.scripting.reserving import Reservation
    from walt.client.scripting.running import Result


class LeaseLost(Exception):
    """Somebody else has the nodes: nothing more is done to them. The run can be gone on with.

    It is no Failure: nobody who takes a node for silent tries it again.
    """


class Lease:
    """The reservation of the nodes of a run, once there is one."""

    def __init__(self) -> None:
        self._reservation: Reservation | None = None

    def begin(self, reservation: Reservation) -> Reservation:
        """Look at this reservation from now on; return it."""
        self._reservation = reservation
        return reservation

    @property
    def lost(self) -> str:
        """Why the nodes are not reserved any more, "" as long as nothing says so."""
        return "" if self._reservation is None else self._reservation.lost

    def check(self) -> None:
        """Raise LeaseLost when somebody else has the nodes."""
        if self.lost:
            raise LeaseLost(f"the nodes are not reserved for this run any more: {self.lost}")

    def ask(self) -> None:
        """Ask the server, then see `check`: what is known otherwise may be 20 s old."""
        if self._reservation is not None:
            self._reservation.ask()
        self.check()


class LeasedShells:
    """Shells of nodes that are ours; see channels.Shells. Raises LeaseLost otherwise."""

    def __init__(self, shells: Shells, lease: Lease) -> None:
        self._shells = shells
        self._lease = lease

    def run(self, node: str, command: str, limit: float) -> Result:
        """Run a command of the shell on a node."""
        self._lease.check()
        return self._shells.run(node, command, limit)

    def fetch(
        self, node: str, path: str, write: Callable[[bytes], object], limit: float
    ) -> int:
        """Give the bytes of a file to `write`."""
        self._lease.check()
        return self._shells.fetch(node, path, write, limit)

    def close(self) -> None:
        """Leave all nodes."""
        self._shells.close()
