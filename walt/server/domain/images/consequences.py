"""Changes of images seen by their users: warnings before, reboots after (user-surface §1.6)."""

from __future__ import annotations

from walt.common.errors import Invalid
from walt.common.names import short_image_name
from walt.common.sentences import subject, verb
from walt.server.domain.images.interfaces import IImageBuilder, IImageStore, IImageUsers
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.requester import IRequester
from walt.server.runtime.coroutines import unbroken


class ImageChanges:
    """Puts finished images in place. `store` provides IImageStore, `users` IImageUsers."""

    def __init__(
        self, images: ImageService, store: IImageStore, users: IImageUsers,
        builder: IImageBuilder,
    ) -> None:
        self.images = images
        self.store = store
        self.users = users
        self._builder = builder

    def warning(self, user: str, name: str) -> str:
        """Return what replacing a user's image would do; empty when the name is free.

        Raises Invalid.
        """
        fullname = self.images.fullname(user, name)
        if not self.images.has(fullname):
            return ""
        nodes = self.users.names(fullname)
        text = f"Image {short_image_name(fullname)} exists already and will be replaced."
        if nodes:
            text += f" {subject(nodes)} {verb(nodes, 'uses', 'use')} it and will reboot."
        return text

    @unbroken
    async def put(self, reference: str, fullname: str, requester: IRequester) -> bool:
        """Give a finished image its name; nodes that boot that name follow.

        The caller holds the image; it goes on even if the requester leaves. Returns whether all nodes could be rebooted.
        Raises Invalid when the image lacks its label or cannot boot these nodes:
        nothing changed then.
        """
        new = await self.store.examine(reference, fullname)
        missing = self.users.models(fullname) - set(new.models)
        if missing:
            raise Invalid(
                f"nodes of type {', '.join(sorted(missing))} boot"
                f" {short_image_name(fullname)}, and the new image is not for them"
                f" (it is for {new.models_text})"
            )
        await self.store.promote(reference, fullname)
        await self.images.renew(fullname)
        followed: bool = await self.users.follow(fullname, requester)
        return followed

    async def squash(self, user: str, name: str, requester: IRequester) -> bool:
        """Merge all layers of an image; return whether its nodes could be rebooted.

        Raises NotFound, Busy or CommandFailed.
        """
        image = await self.images.find(user, name)
        with self.images.task(image.fullname, "squash"):
            reference = self.store.temporary()
            try:
                await self._builder.squash(image, reference, requester)
                ok = await self.put(reference, image.fullname, requester)
            finally:
                await self.store.discard(reference)
        requester.stdout(f"Image {short_image_name(image.fullname)} was squashed.")
        return ok
