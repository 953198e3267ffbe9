"""Searching images everywhere at once (spec server §5.8)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from walt.common.errors import WaltError
from walt.common.names import short_image_name
from walt.server.domain.images import hub
from walt.server.domain.images.links import HUB, LOCAL, link_to
from walt.server.domain.images.model import MODELS_LABEL, RemoteImage, StoredImage
from walt.server.domain.images.places import Given, Places
from walt.server.domain.images.interfaces import IRegistry
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.requester import IRequester

LIMIT = 12.0  # seconds for one source
_KINDS = {"hub": "docker hub", "daemon": "docker daemon", "registry": "custom registry"}


class Searcher:
    """Searches the store and every place. `version` is the major version of this server."""

    def __init__(
        self, images: ImageService, places: Places, clock: IReactorTime, version: int
    ) -> None:
        self._images = images
        self._places = places
        self._clock = clock
        self._version = version

    async def search(
        self, keyword: str, requester: IRequester, given: Given
    ) -> list[dict[str, Any]]:
        """Return the rows of `walt image search`, sorted.

        A source that fails, or is too slow, is told and passed over.
        """
        rows = [
            self._row(image.fullname, image.labels, LOCAL, "walt (other user)")
            for image in self._images.all() if image.user != requester.username
        ]
        rows = [row for row in rows if _matches(row, keyword)]
        count = len(rows)

        def found(more: list[dict[str, Any]]) -> None:
            nonlocal count
            matching = [row for row in more if _matches(row, keyword)]
            rows.extend(matching)
            count += len(matching)
            requester.busy(f"Searching ({count} matches)")

        requester.busy(f"Searching ({count} matches)")
        await DeferredList([
            self._one(place, requester, given).addCallback(found) for place in self._places.all()
        ], consumeErrors=True)
        return sorted(rows, key=lambda row: (row["location"], row["link"]))

    def _one(
        self, place: IRegistry, requester: IRequester, given: Given
    ) -> Deferred[list[dict[str, Any]]]:
        searching = Deferred.fromCoroutine(self._rows(place, given))
        searching.addTimeout(LIMIT + 5, self._clock)

        def failed(failure: Failure) -> list[dict[str, Any]]:
            failure.trap(WaltError, TimeoutError)
            reason = "it is too slow" if failure.check(TimeoutError) else str(failure.value)
            requester.stderr(f"{place.info.label} was skipped: {reason}.")
            return []

        return searching.addErrback(failed)

    async def _rows(self, place: IRegistry, given: Given) -> list[dict[str, Any]]:
        info = place.info
        images: list[RemoteImage] = await place.search(given.get(info.label), LIMIT)
        if info.kind == HUB:
            images = [
                RemoteImage(fullname, labels) for index in images
                for fullname, labels in hub.decode(
                    index.labels.get(hub.INDEX_LABEL, "")
                ).items()
            ]
        return [
            self._row(image.fullname, image.labels, info.label, _KINDS[info.kind])
            for image in images if image.labels.get(MODELS_LABEL)
        ]

    def _row(
        self, fullname: str, labels: Any, location: str, kind: str
    ) -> dict[str, Any]:
        image = StoredImage(fullname, "", labels=labels)
        link = link_to(location, fullname)
        if image.min_version > self._version:
            shown = f"[need server upgrade, version>={image.min_version}]"
        else:
            shown = link
        return {
            "user": image.user, "name": short_image_name(fullname), "location": kind,
            "compatibility": list(image.models), "clonable_link": shown, "link": link,
        }


def _matches(row: dict[str, Any], keyword: str) -> bool:
    return keyword.lower() in row["link"]
