"""What a step finds, and how that is told to people and programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["good", "doubtful", "wrong", "skipped"]
_MARKS: dict[State, str] = {"good": "ok", "doubtful": "warning", "wrong": "WRONG", "skipped": "-"}


@dataclass(frozen=True)
class Finding:
    """The result of one step: `remedy` says what to do, "" when there is nothing to do."""

    step: str
    state: State
    text: str
    remedy: str = ""

    def line(self) -> str:
        """Return it in one line."""
        words = f"{_MARKS[self.state]:8}{self.step}: {' / '.join(self.text.splitlines())}"
        return f"{words} -- {self.remedy}" if self.remedy else words

    def row(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


class _Found(Exception):
    state: State

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.text, self.remedy = text, remedy


class Wrong(_Found):
    """Nodes do not boot, or not all of them."""

    state: State = "wrong"


class Doubtful(_Found):
    """It works, but for how long, or not for everybody."""

    state: State = "doubtful"


class Skipped(_Found):
    """This could not be tried, or is not wanted here."""

    state: State = "skipped"


@dataclass(frozen=True)
class Step:
    """One thing to look at: `look` returns what is good about it, or raises what it found."""

    name: str
    look: Callable[[], str]

    def finding(self) -> Finding:
        """Look; whatever happens is a finding."""
        try:
            return Finding(self.name, "good", self.look())
        except _Found as found:
            return Finding(self.name, found.state, found.text, found.remedy)
        except OSError as error:
            return Finding(
                self.name, "wrong", f"the machine refuses: {error.strerror or error}",
                "run this as root on the server",
            )


def status(findings: Sequence[Finding]) -> int:
    """Return the exit status: 1 when something is wrong."""
    return int(any(finding.state == "wrong" for finding in findings))


def summary(findings: Sequence[Finding]) -> str:
    """Return one sentence about all of them."""
    wrong = sum(finding.state == "wrong" for finding in findings)
    doubtful = sum(finding.state == "doubtful" for finding in findings)
    if wrong:
        return f"{wrong} of {len(findings)} steps are wrong; mend the first one first."
    if doubtful:
        return f"Nodes boot; {doubtful} of {len(findings)} steps are doubtful."
    return "Nodes boot: nothing is wrong."
