"""Records of boots: when each came to which stage, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

BOOTS_KEPT = 1000  # of a node (docs/limits.md)


class Stage(IntEnum):
    """Stages of a boot, in their order, as far as the server can know them."""

    STARTED = 0
    ADDRESS = 1
    SCRIPT = 2
    KERNEL = 3
    ROOT = 4
    SYSTEM = 5
    READY = 6


class Outcome(Enum):
    """How a boot ended, if it did."""

    BOOTING = "booting"
    BOOTED = "booted"
    FAILED = "failed"  # given up after several tries
    INTERRUPTED = "interrupted"  # by the start of another boot


@dataclass(slots=True)
class Boot:
    """One boot of a node, with all its tries.

    `asked` is when the server asked for it, or first saw it; `moments` tells when the present
    try came to each stage: both in epoch seconds. `cause` is None when nobody told why the
    node boots; `digest` is that of the manifest of the image. Nobody but BootProgress
    changes a record.
    """

    mac: str
    asked: float
    node: str
    image: str | None = None
    digest: str | None = None
    cause: str | None = None
    tries: int = 1
    moments: dict[Stage, float] = field(default_factory=dict)
    outcome: Outcome = Outcome.BOOTING
    reason: str | None = None

    @property
    def stage(self) -> Stage:
        """The last stage that the present try reached."""
        return max(self.moments)

    def next_after(self, stage: Stage) -> float | None:
        """Return when the present try reached the next one that it did after a stage, if it did."""
        later = [reached for reached in self.moments if reached > stage]
        return self.moments[min(later)] if later else None

    @property
    def began(self) -> float:
        """When the present try began, in epoch seconds: what was seen first of it."""
        return min(self.moments.values())

    def seconds(self) -> float | None:
        """Return how long the try took that succeeded, None if none did."""
        ready = self.moments.get(Stage.READY)
        return ready - self.began if ready is not None else None

    def try_again(self, stage: Stage, now: float) -> None:
        """The node begins anew, with a stage."""
        self.tries += 1
        self.moments = {stage: now}

    def row(self) -> Mapping[str, object]:
        """Return it as programs get it (walt.rpc.rows.BOOTS)."""
        return {
            "node": self.node, "mac": self.mac, "image": self.image, "digest": self.digest,
            "cause": self.cause, "tries": self.tries, "outcome": self.outcome.value,
            "reason": self.reason, "stage": self.stage.name.lower(), "asked": self.asked,
            **{stage.name.lower(): self.moments.get(stage) for stage in Stage},
        }
