"""Texts of the images domain: recipes, links, the index of the Hub, credentials."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.server.domain.images import hub
from walt.server.domain.images.links import Link, link_to, local_name, parse_link
from walt.server.domain.images.places import parse_credentials
from walt.server.domain.images.recipes import mounts_elsewhere, rewrite

LOCATIONS = ["walt", "hub", "lab"]


class RecipeTests(SynchronousTestCase):
    def test_rewrite(self) -> None:
        """Bare names are the caller's; stages, scratch and full references stay."""
        for line, expected in (
            ("FROM img", "FROM docker.io/ann/img"),
            ("from img:v1 as one", "from docker.io/ann/img:v1 as one"),
            ("FROM --platform=linux/amd64 img", "FROM --platform=linux/amd64 docker.io/ann/img"),
            ("FROM bob/img", "FROM docker.io/bob/img"),
            ("FROM waltplatform/pc-default", "FROM docker.io/waltplatform/pc-default"),
            ("FROM scratch", "FROM scratch"),
            ("FROM docker.io/library/debian:12", "FROM docker.io/library/debian:12"),
            ("FROM localhost:5000/x/y", "FROM localhost:5000/x/y"),
            ("FROM ${BASE}", "FROM ${BASE}"),
        ):
            self.assertEqual(rewrite(f"{line}\nRUN x\n", "ann"), f"{expected}\nRUN x\n")

    def test_stages_and_continuations(self) -> None:
        """A later FROM may name an earlier stage; a continued line is not an instruction."""
        text = "ARG a=1\nFROM img AS Base\nRUN echo \\\nFROM x\nFROM base\nCOPY --from=base a b\n"
        self.assertEqual(
            rewrite(text, "ann"), text.replace("FROM img", "FROM docker.io/ann/img")
        )

    def test_mounts(self) -> None:
        """What RUN mounts of other stages is seen, however it is written."""
        for line in (
            "RUN --mount=type=bind,from=base,source=/,target=/m id",
            "RUN --network=none --MOUNT=from=base,rw id", "RUN --mount=type=bind,$HOW id",
            "RUN --mount=type=bind,fr\\\nom=base id", "RUN \\\n --mount=from=base id",
            'RUN --mount=type=bind,"from=base" id', "RUN --mount=type=bind,fr`\nom=base id",
        ):
            self.assertTrue(mounts_elsewhere(f"FROM img\n{line}\n"), line)
        for line in ("COPY --from=base a b", "RUN --mount=type=tmpfs,target=/m id", "RUN mount"):
            self.assertFalse(mounts_elsewhere(f"FROM img\n{line}\n"), line)

    def test_no_from(self) -> None:
        """A recipe without FROM is refused before podman sees it."""
        for text in ("", "RUN x\n", "# FROM x\n", "FROM\n"):
            self.assertRaises(Invalid, rewrite, text, "ann")

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """No text makes it fail otherwise."""
        try:
            rewrite(text, "ann")
        except Invalid:
            pass


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
