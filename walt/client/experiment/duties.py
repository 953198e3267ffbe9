"""What a run owes from its first order on, until it is done; the manifest tells it as "owes".

Whoever goes on with a run, or gives it up, does what is still owed.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

from walt.client.answers import looks_wrong
from walt.client.errors import Failure, Refused
from walt.client.exceptions import TimeoutException
from walt.client.experiment.collecting import collect
from walt.client.experiment.images import check, save_into
from walt.client.scripting.nodes import find
from walt.client.scripting.reserving import Reservation
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any

    from walt.client.experiment.archive import Folder
    from walt.client.experiment.clocks import Clock
    from walt.client.experiment.holding import Holding
    from walt.client.scripting.nodes import Node

TEARDOWN, COLLECT, RELEASE = DUTIES = ("teardown", "collect", "release")
LONGEST_RESERVATION = 7 * 86400.0  # seconds


def there(names: Collection[str]) -> list[Node]:
    """Return the nodes of these names that were not removed meanwhile. Raises Failure."""
    try:
        return find(",".join(names))
    except Refused as refused:
        if refused.code != "NOT_FOUND":
            raise
        return [] if len(names) == 1 else [node for name in names for node in there([name])]


class Duties:
    """The duties of the run of a manifest, whose nodes have these `names`.

    Raises Failure for a manifest that owes what no run does.
    """

    def __init__(
        self, folder: Folder, manifest: dict[str, Any], names: Collection[str], holding: Holding,
        tell: Callable[[str], object],
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._names = names
        self._holding = holding
        self._tell = tell
        self._owes: list[str] = manifest.setdefault("owes", [RELEASE] if holding.holds else [])
        if looks_wrong(self._owes, [str], ""):
            raise Failure("the archive owes what no run does")

    def __contains__(self, duty: str) -> bool:
        return duty in self._owes

    def __bool__(self) -> bool:
        return bool(self._owes)

    def begin(self) -> None:
        """Owe all of them: nodes are touched from now on."""
        self._owes[:] = DUTIES
        self._folder.write_manifest(self._manifest)

    def done(self, duty: str) -> None:
        """Owe this one no more."""
        if duty in self._owes:
            self._owes.remove(duty)
        self._folder.write_manifest(self._manifest)

    @contextmanager
    def reserving(self) -> Iterator[set[str]]:
        """Reserve each node that can be had; give their names. Others are left alone, and told.

        Raises Failure.
        """
        with ExitStack() as reservations:
            ours = set[str]()
            for name in self._names:
                try:
                    reservations.enter_context(Reservation("*", 1, name, LONGEST_RESERVATION, 0))
                    ours.add(name)
                except Refused as refused:
                    if refused.code == "UNAVAILABLE":
                        raise
                    self._tell(f"{name} is left alone: {refused}")
            yield ours

    def collect(
        self, streams: str | None, stamping: Mapping[str, Clock], now: float, *, last: bool
    ) -> None:
        """Collect what the platform knows of the run; it is done with the `last` time."""
        try:
            collect(
                self._folder.path, [node.name for node in there(self._names)],
                self._manifest["spans"], streams, stamping, now,
            )
        except (Failure, TimeoutException) as failure:
            self._tell(f"logs and boots were not collected: {failure}")
        else:
            if last:
                self._keep_images()
                self.done(COLLECT)

    def check_images(self) -> None:
        """Raise Failure where images are to be kept and cannot be: before hours of points."""
        if self._manifest.get("with_images"):
            check(self._folder.path, self._manifest, self._tell)

    def _keep_images(self) -> None:
        """Keep the images of the run, if that was asked for: it still holds them."""
        if not self._manifest.get("with_images"):
            return
        try:
            self.check_images()
            save_into(self._folder.path, self._manifest)
        except (Failure, OSError) as error:
            self._tell(f"images were not kept: {in_words(error)}")

    def give_back(self, ours: Collection[str]) -> None:
        """Let go of images and of the settings of nodes that are ours."""
        try:
            booting = {node.name: node._record["image"] or "" for node in there(self._names)}
        except (Failure, OSError) as error:
            self._tell(f"images and settings are as the run had them: {in_words(error)}")
            return
        try:
            if self._holding.release(booting, ours):
                self.done(RELEASE)
        finally:
            self._folder.write_manifest(self._manifest)
        if RELEASE in self._owes:
            self._tell(
                f"not all is given back; later: walt experiment release {self._folder.path}"
            )
