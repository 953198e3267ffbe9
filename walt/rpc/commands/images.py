"""Commands about images."""

from __future__ import annotations

from twisted.protocols import amp

from walt.rpc.arguments import Json, Text
from walt.rpc.base import WaltCommand


class ShowImages(WaltCommand):
    """Rows of `walt image show`: working set, others and defaults."""

    commandName = b"cs.images.show"
    side = "cs"
    arguments = [(b"all", amp.Boolean()), (b"refresh", amp.Boolean())]
    response = [(b"tables", Json())]


class HasImage(WaltCommand):
    """Fail with NOT_FOUND unless the caller has this image (or it is `default`)."""

    commandName = b"cs.images.has"
    side = "cs"
    arguments = [(b"image", Text(256)), (b"default_allowed", amp.Boolean())]
