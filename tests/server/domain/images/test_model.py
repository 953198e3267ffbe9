"""Labels of images, and the compact list of models."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.images.model import StoredImage, compact_models, parse_models

ID = "a" * 64


def image(**labels: str) -> StoredImage:
    return StoredImage("u/i:latest", ID, labels={k.replace("_", "."): v for k, v in labels.items()})


class ModelTests(SynchronousTestCase):
    def test_models_label(self) -> None:
        """Words are trimmed, repetitions and impossible names dropped, order kept."""
        self.assertEqual(parse_models(" rpi-b, rpi-2-b,rpi-b,,-x,A"), ("rpi-b", "rpi-2-b"))

    def test_compact_models(self) -> None:
        """Prefixes are grouped and optional ends bracketed when that is shorter."""
        for models, text in (
            ([], ""), (["pc-x86-64"], "pc-x86-64"), (["rpi-b", "rpi-2-b"], "rpi-[b|2-b]"),
            (["rpi-3-b", "rpi-3-b-plus"], "rpi-3-b[-plus]"),
            (["pc-x86-64", "pc-x86-32", "rpi-b"], "pc-x86-[64|32],rpi-b"),
        ):
            self.assertEqual(compact_models(models), text)

    @given(st.lists(st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True)))
    def test_compact_is_never_longer(self, models: list[str]) -> None:
        """The notation shortens, or is the plain list."""
        plain = ",".join(dict.fromkeys(models))
        self.assertLessEqual(len(compact_models(models)), len(plain))

    def test_minimum_version(self) -> None:
        """Unreadable or below 1: the default; else the label."""
        for label, version in (("5", 5), ("0", 4), ("x", 4), ("0.3", 4)):
            self.assertEqual(image(walt_server_minversion=label).min_version, version)
        self.assertEqual(image().min_version, 4)

    def test_preferred_name_is_checked(self) -> None:
        """A label that cannot name an image counts as none."""
        kept = StoredImage("u/i:latest", ID, labels={"walt.image.preferred-name": "pc-debian"})
        self.assertEqual(kept.preferred_name, "pc-debian")
        for bad in ("", "A", "../x", "default", "-x"):
            odd = StoredImage("u/i:latest", ID, labels={"walt.image.preferred-name": bad})
            self.assertIsNone(odd.preferred_name)

    def test_editable(self) -> None:
        """128 layers are too many for another one."""
        self.assertTrue(StoredImage("u/i:t", ID, layers=("l",) * 127).editable)
        self.assertFalse(StoredImage("u/i:t", ID, layers=("l",) * 128).editable)
