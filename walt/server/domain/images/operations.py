"""What people do with images, in one place for the API."""

from __future__ import annotations
from typing import NamedTuple


from walt.server.domain.images.builds import ImageBuilds
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.clone import Cloner
from walt.server.domain.images.defaults import DefaultImages
from walt.server.domain.images.migration import Migration
from walt.server.domain.images.places import Places
from walt.server.domain.images.publish import Publisher
from walt.server.domain.images.search import Searcher
from walt.server.domain.images.sessions import ImageSessions


class ImageOperations(NamedTuple):
    """The services of the images domain, beside names and metadata."""

    sessions: ImageSessions
    changes: ImageChanges
    builds: ImageBuilds
    places: Places
    cloner: Cloner
    publisher: Publisher
    searcher: Searcher
    defaults: DefaultImages
    migration: Migration
