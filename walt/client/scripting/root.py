"""The root object and its modules (spec user-surface §2.1)."""

from __future__ import annotations

import os
import sys

from walt.client.scripting.objects import ApiObject

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from walt.client.scripting.images import ImageSet, OwnImage
    from walt.client.scripting.logs import LogLines
    from walt.client.scripting.nodes import Node, NodeSet
    from walt.client.scripting.reserving import Reservation
    from walt.client.scripting.server import Server


class Nodes(ApiObject):
    """Nodes."""

    _title = "API submodule for WalT nodes"

    def get_nodes(self, node_set: object = "all-nodes") -> NodeSet:
        """Return a set of nodes"""
        from walt.client.scripting.nodes import NodeSet, find, set_text

        return NodeSet(find(set_text(node_set)))

    def reserve(
        self, model: str = "*", count: int = 1, nodes: object = "all-nodes",
        seconds: float = 3600.0, wait: float = 0.0,
    ) -> Reservation:
        """Reserve nodes for a while"""
        from walt.client.scripting.reserving import Reservation

        return Reservation(model, count, nodes, seconds, wait)

    def create_vnode(self, node_name: str) -> Node:
        """Create a virtual node"""
        from walt.client.scripting.link import LINK
        from walt.client.scripting.nodes import find

        LINK.call("cs.nodes.create", name=node_name)
        (node,) = find(node_name)
        return node


class Images(ApiObject):
    """Images."""

    _title = "API submodule for WalT images"

    def get_images(self) -> ImageSet:
        """Return the images of your working set"""
        from walt.client.scripting.images import ImageSet, own_images

        return ImageSet(own_images())

    def build(self, image_name: str, dir_or_url: str, sub_dir: str = "/") -> OwnImage | None:
        """Build an image from a directory or a git repository"""
        from walt.client.errors import Failure
        from walt.client.operations import images
        from walt.client.operations.transfers import Told
        from walt.client.remote import output_only
        from walt.client.scripting.link import LINK

        if LINK.call("cs.images.warning", image=image_name)[b"warning"]:
            print(f"there is an image {image_name} already; remove it first", file=sys.stderr)
            return None
        told, status = Told(), None
        try:
            if os.path.exists(dir_or_url):
                stream, status = images.build_of_directory(image_name, dir_or_url, told)
            else:
                stream = images.build_of_repository(image_name, dir_or_url, sub_dir, False)
            for text in told.texts:
                print(text, file=sys.stderr)
            if status is None:
                status = output_only(stream)
        except Failure as error:
            print(error, file=sys.stderr)
            return None
        return self.get_images().get(image_name) if status == 0 else None

    def clone(
        self, clonable_image_link: str, force: bool = False, image_name: str | None = None
    ) -> OwnImage | None:
        """Clone an image into your working set"""
        from walt.client.scripting.images import clone

        return clone(clonable_image_link, force, image_name or "")


class Logs(ApiObject):
    """Logs."""

    _title = "API submodule for WalT logs"

    def get_logs(
        self, realtime: bool = False, history: str | None = None, issuers: object = "my-nodes",
        timeout: float = -1, consoles: bool = False,
    ) -> LogLines:
        """Iterate over log lines"""
        from walt.client.scripting.issuers import Issuers
        from walt.client.scripting.logs import get_logs
        from walt.client.scripting.nodes import node_of, set_text

        return get_logs(
            set_text(issuers), realtime, history, timeout, consoles, Issuers(node_of)
        )


class Tools(ApiObject):
    """Other things."""

    _title = "Misc API features"

    def get_server(self) -> Server:
        """Return the server"""
        from walt.client.scripting.server import server

        return server()


class Api(ApiObject):
    """What `from walt.client import api` gives."""

    _title = "WalT API root"

    def __init__(self) -> None:
        self._images, self._logs, self._nodes, self._tools = Images(), Logs(), Nodes(), Tools()

    @property
    def images(self) -> Images:
        """Images."""
        return self._images

    @property
    def logs(self) -> Logs:
        """Logs."""
        return self._logs

    @property
    def nodes(self) -> Nodes:
        """Nodes."""
        return self._nodes

    @property
    def tools(self) -> Tools:
        """Other things."""
        return self._tools


API = Api()
