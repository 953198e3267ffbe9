"""What was answered before the power was cut, and what may be there afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tests.lab.busy import BASE, LINES


class Ledger:
    """Keeps what `busy.py` tells; what was begun and not answered may be done or not."""

    def __init__(self, images: Mapping[str, str]) -> None:
        self.images: dict[str, set[str | None]] = {
            name: {mark} for name, mark in images.items()
        }
        self._moving: tuple[str, str] | None = None  # a name and the one that it gets
        self.known: dict[str, str] = {}  # addresses that were answered to, by MAC
        self.logs: dict[int, set[int]] = defaultdict(set)  # receipts, by cut
        self.points: dict[int, set[int]] = defaultdict(set)  # that were measured, by cut
        self.runs: set[int] = set()  # cuts whose experiment was begun
        self.answers = 0  # since the last `settled`
        self.failures: list[str] = []

    def note(self, cut: int, told: Mapping[str, Any]) -> None:
        """Take note of one thing told; the status of what was done counts."""
        loop, done = told["loop"], told["state"] == "done"
        if loop == "watch" or told["state"] == "sent":
            return
        if told["state"] == "run":
            self.runs.add(cut)
        if done and told["status"] != 0:
            self.failures.append(str(told))
            return
        self.answers += done and loop not in ("log", "point")
        if loop in ("build", "save"):
            name = told["name"]
            self.images[name] = {told["mark"]} if done else (
                self.images.get(name, {None}) | {told["mark"]}
            )
        elif loop == "rename":
            old, new = told["old"], told["new"]
            if done:
                self.images[new] = self.images.pop(old) - {None}
                self._moving = None
            else:
                self._moving = old, new
        elif loop == "register" and done:
            self.known[told["mac"]] = told["ip"]
        elif loop == "log" and done:
            self.logs[cut].add(told["number"])
        elif loop == "point" and done:
            self.points[cut].add(told["number"])

    def differences(self, found: Mapping[str, str]) -> list[str]:
        """Return what of the images is not as it may be, a sentence each."""
        allowed = dict(self.images)
        wrong = []
        if self._moving is not None:
            old, new = self._moving
            marks = allowed[old]
            if old not in found and new not in found:
                wrong.append(f"neither {old} nor {new} is there")
            allowed[old] = allowed[new] = marks | {None}
        for name in sorted({*allowed, *found}):
            mark = found.get(name)
            if mark not in allowed.get(name, {None}):
                wrong.append(f"{name} is {mark!r}, not {allowed.get(name)}")
        return wrong

    def settled(self, found: Mapping[str, str]) -> None:
        """What is there now is what there has to be from now on."""
        self.images = {name: {mark} for name, mark in found.items()}
        self._moving = None
        self.answers = 0

    def lines_missing(self, cut: int, lines: Sequence[str]) -> list[str]:
        """Return what of the log of a cut is not as it may be, a sentence each."""
        found: dict[int, list[int]] = defaultdict(list)
        for line in lines:
            _, _, number, index = line.split()
            found[int(number)].append(int(index))
        wrong = [
            f"of the lines {number} there are {len(found[number])}"
            for number in sorted(self.logs[cut]) if sorted(found[number]) != list(range(LINES))
        ]
        return wrong + [
            f"lines {number} came twice" for number, indices in found.items()
            if len(set(indices)) != len(indices)
        ]


def first_images() -> dict[str, str]:
    """Return the images that there are before anything is done, with their marks."""
    return {name: BASE for name in ("base", "saved-0", "saved-1", "moved-0")}
