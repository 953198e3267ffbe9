"""Memory of the process: what stays is not looked at again, what is free goes back.

Python's collector looks for cycles among all objects again and again while their number grows,
in one turn of the reactor. What the start makes, hundreds of thousands of objects, is there as
long as the server is: the collector need not look at it, neither meanwhile nor later. Of what
modules leave behind when they are imported some 2,000 objects stay that it would find.

What comes later, and stays, is put aside as well, once it is so much that looks at all become
long. What the look has just left is in use; a cycle of it that falls apart later is lost, which
is little: looks that leave so much are few.

The C library keeps what was freed for the next time. What an answer about thousands of nodes
takes for a moment leaves holes between what stays: now and then they are given back.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Mapping

LONG = 0.01  # seconds of a look at all that is not put aside
MANY = 10_000  # objects that it leaves
# Python's thresholds, but for the last one (10): what is new since the last look at all is less,
# and so is what one turn of the reactor has to look at. With less than 2, one turn has several.
OFTEN = (700, 10, 2)
# What nodes bring at the start stays: many thousands of objects, of which none is garbage.
SELDOM = (500_000, 10, 10)
EVERY = 30.0  # seconds between two times that memory is given back, which takes milliseconds


class Looks:
    """Puts aside what is there after each long look at all (gc.callbacks).

    It is long when it takes more than `long` seconds, and leaves more than `many` objects.
    """

    def __init__(self, *, long: float = LONG, many: int = MANY) -> None:
        self._long, self._many = long, many
        self._begun = 0.0

    def __call__(self, phase: str, told: Mapping[str, int]) -> None:
        """Take the beginning or the end of a look of the collector."""
        if told["generation"] != 2:
            return
        if phase == "start":
            self._begun = time.thread_time()
        elif (
            time.thread_time() - self._begun > self._long
            and len(gc.get_objects(2)) > self._many
        ):
            gc.freeze()


_LOOKS = Looks()  # there is one collector


def building(looks: Looks = _LOOKS) -> None:
    """Collect nothing until `built`: to be called at the beginning of the start."""
    gc.disable()
    if looks not in gc.callbacks:
        gc.callbacks.append(looks)


def built(*, filling: bool = False) -> None:
    """Collect from now on, but for what is there; seldom, if it is filled yet.

    Cycles that are garbage now stay, too: for the few moments at which something large that
    stays was made.
    """
    gc.freeze()
    gc.set_threshold(*(SELDOM if filling else OFTEN))
    gc.enable()


def give_back() -> None:
    """Give memory that is free back to the system (malloc_trim(3), which the GNU library has)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
