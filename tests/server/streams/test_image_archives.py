"""REQ_SAVE_IMAGES and REQ_LOAD_IMAGES: checked parameters, files that end with their connection."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeArchiver, FakeCatalog, FakeImageUsers, FakeStore
from tests.fakes.transports import TcpTransport
from tests.server.streams.platform import CLIENT, FakeSessions
from walt.common import frames, room
from walt.server.domain.images.archives import ImageArchives
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.model import StoredImage
from walt.server.streams.base import StreamProtocol
from walt.server.streams.image_archives import LoadImagesRequest, SaveImagesRequest
from walt.server.streams.registry import requests

LABELS = {"walt.node.models": "pc-x86-64"}
ARCHIVE = json.dumps({"c" * 64: LABELS}).encode()


class ImageArchiveStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = FakeStore(StoredImage("ann/img:latest", "a" * 64, labels=LABELS))
        images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.successResultOf(Deferred.fromCoroutine(images.refresh()))
        self.places = Path(self.mktemp())
        archives = ImageArchives(
            ImageChanges(images, self.store, FakeImageUsers(), None),
            FakeArchiver(self.store, self.places), 11,
        )
        self.sessions = FakeSessions()
        self.table = requests({
            "REQ_SAVE_IMAGES": partial(SaveImagesRequest, archives, self.sessions),
            "REQ_LOAD_IMAGES": partial(LoadImagesRequest, archives),
        })

    def ask(self, request: str, **parameters: Any) -> tuple[StreamProtocol, TcpTransport]:
        """Open a stream."""
        protocol, transport = StreamProtocol(self.table, CLIENT, Clock()), TcpTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"{request}\n{json.dumps(parameters)}\n".encode())
        return protocol, transport

    def result(self, transport: TcpTransport) -> dict[str, Any]:
        """Return the result that was sent."""
        sent = list(frames.Decoder().feed(transport.value()))
        self.assertEqual(sent[-1][0], frames.RESULT)
        found: dict[str, Any] = json.loads(sent[-1][1])
        return found

    def nothing_left(self) -> None:
        """Neither files nor references stay."""
        self.assertEqual(list(self.places.glob("*")), [])
        self.assertEqual(self.store.temporaries, {})

    def test_parameters(self) -> None:
        """Ids are ids, names are names, and both are some."""
        for ids in (None, [], "a" * 64, ["x"], [5], ["a" * 63], ["A" * 64], ["a" * 64] * 65):
            _, transport = self.ask("REQ_SAVE_IMAGES", ids=ids)
            self.assertEqual(self.result(transport)["code"], "INVALID", ids)
        for images in (None, {}, [], {"x": 5}, {"x": "y"}, {"../x": "c" * 64}):
            _, transport = self.ask("REQ_LOAD_IMAGES", images=images)
            self.assertEqual(self.result(transport)["code"], "INVALID", images)
        _, transport = self.ask("REQ_SAVE_IMAGES", ids=["9" * 64])
        self.assertEqual(self.result(transport)["code"], "NOT_FOUND")
        self.nothing_left()

    def test_saved(self) -> None:
        """What the program writes is sent; one that fails is told with its reason."""
        for status in (0, 2):
            _, transport = self.ask("REQ_SAVE_IMAGES", ids=["a" * 64])
            program = self.sessions.made[-1]
            program.options["output"](b"bytes of images")
            program.options["errors"](b"no space")
            program.options["ended"](status)
            sent = list(frames.Decoder().feed(transport.value()))
            self.assertIn((frames.DATA, b"bytes of images"), sent)
            found = self.result(transport)
            self.assertEqual(found["status"] == 0, status == 0)
            self.assertEqual("no space" in found.get("error", ""), status != 0)
            self.nothing_left()

    def test_a_client_that_leaves(self) -> None:
        """Its program is ended, and then its files go; so does what was sent."""
        protocol, _ = self.ask("REQ_SAVE_IMAGES", ids=["a" * 64])
        program = self.sessions.made[-1]
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIn("close", program.events)
        program.options["ended"](1)
        self.nothing_left()
        protocol, _ = self.ask("REQ_LOAD_IMAGES", images={"new": "c" * 64})
        protocol.dataReceived(frames.encode(frames.DATA, ARCHIVE[:10]))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.nothing_left()
        self.assertEqual(list(self.store.names), ["ann/img:latest"])

    def test_disk_that_fills(self) -> None:
        """What comes stops before others have no room; what came goes."""
        protocol, transport = self.ask("REQ_LOAD_IMAGES", images={"new": "c" * 64})
        protocol.dataReceived(frames.encode(frames.DATA, ARCHIVE[:10]))
        usage = room.shutil.disk_usage(self.places)
        self.patch(room.shutil, "disk_usage", lambda _: usage._replace(free=room.RESERVE + 9))
        protocol.dataReceived(frames.encode(frames.DATA, ARCHIVE[:9]))
        protocol.dataReceived(frames.encode(frames.DATA, ARCHIVE[:10]))
        found = self.result(transport)
        self.assertEqual(found["code"], "LIMIT_EXCEEDED")
        self.assertIn("the server has not the room on its disk", found["error"])
        self.nothing_left()

    def test_loaded(self) -> None:
        """An archive becomes an image; one that is larger than allowed does not."""
        protocol, transport = self.ask("REQ_LOAD_IMAGES", images={"new": "c" * 64})
        protocol.dataReceived(
            frames.encode(frames.DATA, ARCHIVE[:10]) + frames.encode(frames.DATA, ARCHIVE[10:])
            + frames.encode(frames.END)
        )
        self.assertEqual(self.result(transport), {"status": 0})
        self.assertIn("alice/new:latest", self.store.names)
        self.nothing_left()
        protocol, transport = self.ask("REQ_LOAD_IMAGES", images={"more": "c" * 64})
        request: Any = protocol._request
        request._upload._most = 5
        protocol.dataReceived(frames.encode(frames.DATA, ARCHIVE))
        self.assertEqual(self.result(transport)["code"], "LIMIT_EXCEEDED")
        protocol.dataReceived(frames.encode(frames.END))
        self.nothing_left()
