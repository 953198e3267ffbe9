"""Who may read which image, and until when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.images.uses import GRACE, ImageUses, Use

A, B = Use("a" * 64, "m1", "192.168.1.10"), Use("b" * 64, "m1", "192.168.1.10")


class ImageUsesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.uses = ImageUses()

    def test_another_image(self) -> None:
        """A node that was given another image may read the former one for the grace time."""
        self.uses.update([A], 0)
        self.assertIsNone(self.uses.next_end())
        self.uses.update([B], 10)
        both = {A.image_id: frozenset({A.ip}), B.image_id: frozenset({B.ip})}
        self.assertEqual(self.uses.readers(), both)
        self.assertEqual(self.uses.next_end(), 10 + GRACE)
        self.uses.update([B], 9 + GRACE)
        self.assertEqual(self.uses.images(), {A.image_id, B.image_id})
        self.uses.update([B], 10 + GRACE)
        self.assertEqual(self.uses.images(), {B.image_id})
        self.assertIsNone(self.uses.next_end())

    def test_use_again(self) -> None:
        """A use that is wanted again has no end."""
        self.uses.update([A], 0)
        self.uses.update([], 10)
        self.uses.update([A], 20)
        self.uses.update([A], 10 * GRACE)
        self.assertEqual(self.uses.images(), {A.image_id})

    def test_another_node_keeps_its_image(self) -> None:
        """The end of a use is that of one node; the image stays for the others."""
        other = Use(A.image_id, "m2", "192.168.1.11")
        self.uses.update([A, other], 0)
        self.uses.update([other], 0)
        self.uses.update([other], GRACE)
        self.assertEqual(self.uses.readers(), {A.image_id: frozenset({other.ip})})

    def test_left_overs(self) -> None:
        """What a former server left stays for the grace time, without readers."""
        self.uses.adopt({A.image_id}, 5)
        self.uses.update([B], 5)
        self.assertEqual(self.uses.images(), {A.image_id, B.image_id})
        self.assertEqual(set(self.uses.readers()), {B.image_id})
        self.assertEqual(self.uses.next_end(), 5 + GRACE)
        self.uses.update([B], 5 + GRACE)
        self.assertEqual(self.uses.images(), {B.image_id})

    def test_no_address_yet(self) -> None:
        """A node without address keeps its image mounted and reads nothing."""
        self.uses.update([Use(A.image_id, "m1", None)], 0)
        self.assertEqual(self.uses.images(), {A.image_id})
        self.assertEqual(self.uses.readers(), {})

    @given(st.lists(st.tuples(
        st.sets(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))), st.floats(0, 100)
    )))
    def test_never_less_than_wanted(self, steps: list[tuple[set[tuple[str, str]], float]]) -> None:
        """What is wanted is readable; what is readable was wanted within the grace time."""
        uses, now, wanted_at = ImageUses(), 0.0, dict[tuple[str, str], float]()
        for pairs, pause in steps:
            for pair in [one for one, at in wanted_at.items() if at == now]:
                wanted_at[pair] = now + pause  # wanted until the next update
            now += pause
            wanted_at.update(dict.fromkeys(pairs, now))
            uses.update([Use(image, mac, mac) for image, mac in pairs], now)
            readable = {
                (image, ip) for image, ips in uses.readers().items() for ip in ips
            }
            self.assertLessEqual(pairs, readable)
            for pair in readable:
                self.assertLess(now - wanted_at[pair], GRACE + 1e-6)
