"""Who may read which image, and until when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.images.uses import GRACE, ImageUses, Use

A, B = Use("a" * 64, "m1", "192.168.1.10"), Use("b" * 64, "m1", "192.168.1.10")


class Told(ImageUses):
    """Uses that are told all that is wanted now."""

    def __init__(self) -> None:
        super().__init__()
        self.macs: set[str] = set()

    def all(self, wanted: list[Use], now: float) -> None:
        """Take all of them."""
        by_mac = {use.mac: use for use in wanted}
        gone, self.macs = self.macs - by_mac.keys(), set(by_mac)
        self.update({**dict.fromkeys(gone), **by_mac}, now)


class ImageUsesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.uses = Told()

    def test_another_image(self) -> None:
        """A node that was given another image may read the former one for the grace time."""
        self.uses.all([A], 0)
        self.assertIsNone(self.uses.next_end())
        self.uses.all([B], 10)
        both = {A.image_id: frozenset({A.ip}), B.image_id: frozenset({B.ip})}
        self.assertEqual(self.uses.readers(), both)
        self.assertEqual(self.uses.next_end(), 10 + GRACE)
        self.uses.all([B], 9 + GRACE)
        self.assertEqual(self.uses.images(), {A.image_id, B.image_id})
        self.uses.all([B], 10 + GRACE)
        self.assertEqual(self.uses.images(), {B.image_id})
        self.assertIsNone(self.uses.next_end())

    def test_use_again(self) -> None:
        """A use that is wanted again has no end."""
        self.uses.all([A], 0)
        self.uses.all([], 10)
        self.uses.all([A], 20)
        self.uses.all([A], 10 * GRACE)
        self.assertEqual(self.uses.images(), {A.image_id})

    def test_another_node_keeps_its_image(self) -> None:
        """The end of a use is that of one node; the image stays for the others."""
        other = Use(A.image_id, "m2", "192.168.1.11")
        self.uses.all([A, other], 0)
        self.uses.all([other], 0)
        self.uses.all([other], GRACE)
        self.assertEqual(self.uses.readers(), {A.image_id: frozenset({other.ip})})

    def test_left_overs(self) -> None:
        """What a former server left stays for the grace time, without readers."""
        self.uses.adopt({A.image_id}, 5)
        self.uses.all([B], 5)
        self.assertEqual(self.uses.images(), {A.image_id, B.image_id})
        self.assertEqual(set(self.uses.readers()), {B.image_id})
        self.assertEqual(self.uses.next_end(), 5 + GRACE)
        self.uses.all([B], 5 + GRACE)
        self.assertEqual(self.uses.images(), {B.image_id})

    def test_no_address_yet(self) -> None:
        """A node without address keeps its image mounted and reads nothing."""
        self.uses.all([Use(A.image_id, "m1", None)], 0)
        self.assertEqual(self.uses.images(), {A.image_id})
        self.assertEqual(self.uses.readers(), {})

    @given(st.lists(st.tuples(
        st.dictionaries(st.sampled_from("xyz"), st.sampled_from("abc")), st.floats(0, 100)
    )))
    def test_never_less_than_wanted(self, steps: list[tuple[dict[str, str], float]]) -> None:
        """What is wanted is readable; what is readable was wanted within the grace time."""
        uses, now, wanted_at = Told(), 0.0, dict[tuple[str, str], float]()
        for images, pause in steps:
            pairs = {(image, mac) for mac, image in images.items()}
            for pair in [one for one, at in wanted_at.items() if at == now]:
                wanted_at[pair] = now + pause  # wanted until the next update
            now += pause
            wanted_at.update(dict.fromkeys(pairs, now))
            uses.all([Use(image, mac, mac) for image, mac in pairs], now)
            readable = {
                (image, ip) for image, ips in uses.readers().items() for ip in ips
            }
            self.assertLessEqual(pairs, readable)
            for pair in readable:
                self.assertLess(now - wanted_at[pair], GRACE + 1e-6)
