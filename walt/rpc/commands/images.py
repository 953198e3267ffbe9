"""Commands about images."""

from __future__ import annotations

from twisted.protocols import amp

from walt.rpc import rows
from walt.rpc.arguments import Json, Names, Text
from walt.rpc.base import WaltCommand


class ShowImages(WaltCommand):
    """Rows of `walt image show`: working set, others and defaults."""

    commandName = b"cs.images.show"
    side = "cs"
    arguments = [(b"all", amp.Boolean()), (b"refresh", amp.Boolean())]
    response = [(b"tables", Json(rows.IMAGES))]


class GetImageLayers(WaltCommand):
    """What images are made of, by their full names; those that are not there are left out."""

    commandName = b"cs.images.layers"
    side = "cs"
    arguments = [(b"images", Names())]
    response = [(b"images", Json(rows.LAYERS))]


class ImageWarning(WaltCommand):
    """What replacing an image would do, in a sentence; empty when the name is free."""

    commandName = b"cs.images.warning"
    side = "cs"
    arguments = [(b"image", Text(256))]
    response = [(b"warning", Text(1 << 20))]


class DuplicateImage(WaltCommand):
    """Give an image a second name."""

    commandName = b"cs.images.duplicate"
    side = "cs"
    arguments = [(b"image", Text(256)), (b"new_name", Text(256))]


class RenameImage(WaltCommand):
    """Change the name of an image that no node uses."""

    commandName = b"cs.images.rename"
    side = "cs"
    arguments = [(b"image", Text(256)), (b"new_name", Text(256))]


class RemoveImage(WaltCommand):
    """Remove an image that no node uses."""

    commandName = b"cs.images.remove"
    side = "cs"
    arguments = [(b"image", Text(256))]


class SquashImage(WaltCommand):
    """Merge the layers of an image; `ok` is false when nodes could not be rebooted."""

    commandName = b"cs.images.squash"
    side = "cs"
    arguments = [(b"image", Text(256))]
    response = [(b"ok", amp.Boolean())]


class OpenImageSession(WaltCommand):
    """Open a container of an image, for a `shell` or a `transfer`.

    It lives until this connection ends, or cs.images.close.
    """

    commandName = b"cs.images.open"
    side = "cs"
    arguments = [(b"image", Text(256)), (b"task", Text(20))]
    response = [(b"session", Text(64))]


class GetImagePathKinds(WaltCommand):
    """What a path of an image is, and its directory: two of `f`, `d`, `o`, `-` (nothing)."""

    commandName = b"cs.images.path_kinds"
    side = "cs"
    arguments = [(b"session", Text(64)), (b"path", Text(4096))]
    response = [(b"kinds", Names())]


class SaveImageSession(WaltCommand):
    """Make the changes of a session an image; `ok` is false when nodes could not be rebooted.

    It may replace an image: cs.images.warning tells before.
    """

    commandName = b"cs.images.save"
    side = "cs"
    arguments = [(b"session", Text(64)), (b"image", Text(256))]
    response = [(b"ok", amp.Boolean())]


class CloseImageSession(WaltCommand):
    """End a session; what was not saved is lost."""

    commandName = b"cs.images.close"
    side = "cs"
    arguments = [(b"session", Text(64))]


class ChangeImagesOwner(WaltCommand):
    """Move all images of another user to the caller's working set; return their names."""

    commandName = b"cs.images.change_owner"
    side = "cs"
    arguments = [(b"user", Text(63))]
    response = [(b"names", Names())]


class ListRegistries(WaltCommand):
    """Registries of the server: label, description, publishing and reading need credentials."""

    commandName = b"cs.registries.list"
    side = "cs"
    response = [(b"rows", Json(rows.REGISTRIES))]


class RegistryLogin(WaltCommand):
    """Try credentials ({label: {username, password}}) on a registry; DENIED if refused."""

    commandName = b"cs.registries.login"
    side = "cs"
    arguments = [(b"label", Text(100)), (b"credentials", Json())]


class CloneImage(WaltCommand):
    """Copy an image from somewhere else into the caller's working set.

    An empty `name` is derived from the link. CONFLICT when it exists and `force` is
    false: the text ends with `hint`. CREDENTIALS_NEEDED: call again with some.
    """

    commandName = b"cs.images.clone"
    side = "cs"
    arguments = [
        (b"link", Text(1000)), (b"name", Text(256)), (b"force", amp.Boolean()),
        (b"hint", Text(4096)), (b"credentials", Json()),
    ]
    response = [(b"ok", amp.Boolean())]


class PublishImage(WaltCommand):
    """Copy an image of the caller to a registry; return its clonable link."""

    commandName = b"cs.images.publish"
    side = "cs"
    arguments = [(b"registry", Text(100)), (b"image", Text(256)), (b"credentials", Json())]
    response = [(b"link", Text(2000))]


class SearchImages(WaltCommand):
    """Images of other users and of every registry, whose link holds the keyword."""

    commandName = b"cs.images.search"
    side = "cs"
    arguments = [(b"keyword", Text(256)), (b"credentials", Json())]
    response = [(b"rows", Json(rows.FOUND))]


class UpdateDefaultImages(WaltCommand):
    """Download newer versions of the default images; `ok` is false when something failed."""

    commandName = b"cs.images.update_defaults"
    side = "cs"
    arguments = [(b"credentials", Json())]
    response = [(b"ok", amp.Boolean())]


class UpdateHubIndex(WaltCommand):
    """Make the index image of an account of the Docker Hub anew; return what it lists."""

    commandName = b"cs.images.update_hub_index"
    side = "cs"
    arguments = [(b"platform_user", amp.Boolean()), (b"credentials", Json())]
    response = [(b"names", Names())]
