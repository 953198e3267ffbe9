"""Texts of the images domain: links, the index of the Hub, credentials."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.server.domain.images import hub
from walt.server.domain.images.links import Link, link_to, local_name, parse_link
from walt.server.domain.images.places import parse_credentials

LOCATIONS = ["walt", "hub", "lab"]


class LinkTests(SynchronousTestCase):
    def test_parse(self) -> None:
        """Location, user, name, tag."""
        for text, link in (
            ("walt:bob/img", Link("walt", "bob", "img")),
            ("lab:bob/img:v1.2", Link("lab", "bob", "img", "v1.2")),
            ("lab:b_o.b/i__m-g", Link("lab", "b_o.b", "i__m-g")),
            ("lab:repo/deep/img", Link("lab", "repo", "deep/img")),
        ):
            self.assertEqual(parse_link(text, LOCATIONS), link)
            self.assertEqual(str(link), text)
        self.assertEqual(str(parse_link("hub:a/b:latest", LOCATIONS)), "hub:a/b")

    def test_refused(self) -> None:
        """Every other form gets the accepted one and the locations."""
        for text in (
            "", "img", "bob/img", "walt:img", "nowhere:bob/img", "lab:Bob/img", "lab:bob/",
            "lab:bob/img:", "lab:-x/img", "lab:bob/img:-v", "lab:../img", "lab:bob/img@sha256:0",
            "lab:bob/img ", "lab:bob/img\n", "lab:" + "a" * 500 + "/b", "--x:a/b", "lab:a//b",
        ):
            refused = self.assertRaises(Invalid, parse_link, text, LOCATIONS)
            self.assertIn("hub, lab, walt", str(refused))

    def test_names(self) -> None:
        """What a copy is called."""
        for link, name in (
            (Link("lab", "bob", "img"), "img"), (Link("lab", "bob", "img", "v1"), "img:v1"),
            (Link("lab", "bob", "i_m.g", "V1.2"), "i-m-g:v1-2"),
            (Link("lab", "r", "deep/img"), "deep-img"),
        ):
            self.assertEqual(local_name(link), name)
        self.assertEqual(link_to("lab", "bob/img:latest"), "lab:bob/img")
        self.assertEqual(link_to("lab", "bob/img:v1"), "lab:bob/img:v1")


class HubTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """What was written is read back."""
        images = {"a/b:latest": {"walt.node.models": "m"}, "a/c:latest": {}}
        self.assertEqual(hub.decode(hub.encode(images)), images)

    @given(st.text(max_size=300))
    def test_anything(self, label: str) -> None:
        """A label that somebody else wrote is never an error."""
        self.assertIsInstance(hub.decode(label), dict)

    def test_malformed(self) -> None:
        """Entries of a wrong shape are left out."""
        import base64

        for text in ("[]", "{}", '{"walt.user.images": []}', "[" * 100_000):
            self.assertEqual(hub.decode(base64.b64encode(text.encode()).decode()), {})


class CredentialTests(SynchronousTestCase):
    def test_checked(self) -> None:
        """Two texts for each label, and the password is not shown."""
        found = parse_credentials({"lab": {"username": "u", "password": "s3cret"}})
        self.assertEqual(found["lab"].password, "s3cret")
        self.assertNotIn("s3cret", repr(found))
        for bad in (
            None, [], {"lab": None}, {"lab": {"username": "u"}},
            {"lab": {"username": "u:v", "password": "x"}},
            {"lab": {"username": "", "password": "x"}}, {"lab": {"username": 1, "password": "x"}},
            {"lab": {"username": "u", "password": "x" * 10_000}},
        ):
            refused = self.assertRaises(Invalid, parse_credentials, bad)
            self.assertNotIn("xxx", str(refused))
