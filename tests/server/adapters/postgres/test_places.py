"""Connection strings of several servers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Unavailable
from walt.server.adapters.postgres.places import places

NAMES = st.text(st.characters(exclude_characters=",\0", codec="utf-8"), min_size=1, max_size=12)
SERVERS = st.lists(st.tuples(NAMES, st.integers(1, 65535)), min_size=1, max_size=5)


class PlacesTests(SynchronousTestCase):
    def test_one(self) -> None:
        """One server stays as it is written; one on the network is missed when it is gone."""
        self.assertEqual(places("host=/run/pg dbname=walt"), ["dbname=walt host=/run/pg"])
        self.assertEqual(places("service=walt"), ["service=walt"])
        (one,) = places("host=db1 dbname=walt keepalives_idle=60")
        self.assertEqual(
            {name: value for name, value in parse_dsn(one).items() if name.endswith("idle")},
            {"keepalives_idle": "60"},
        )
        self.assertIn("tcp_user_timeout", parse_dsn(one))
        self.assertNotIn("target_session_attrs", parse_dsn(one))

    def test_several(self) -> None:
        """Each has its own string; the one that writes is wanted, unless something else is said."""
        first, second = map(parse_dsn, places("postgresql://ann:pw@a:1,b/walt?sslmode=require"))
        self.assertEqual((first["host"], first["port"]), ("a", "1"))
        self.assertEqual((second["host"], second.get("port")), ("b", None))
        for one in (first, second):
            self.assertEqual(one["target_session_attrs"], "read-write")
            self.assertEqual((one["user"], one["sslmode"]), ("ann", "require"))
        told = parse_dsn(places("host=a,b target_session_attrs=any")[1])
        self.assertEqual(told["target_session_attrs"], "any")
        both = parse_dsn(places("host=x,y hostaddr=10.0.0.1,10.0.0.2 port=5433")[1])
        self.assertEqual(
            (both["host"], both["hostaddr"], both["port"]), ("y", "10.0.0.2", "5433")
        )

    @given(SERVERS)
    def test_any(self, servers: list[tuple[str, int]]) -> None:
        """Whatever servers are called, each is one place, in its order."""
        dsn = make_dsn(
            host=",".join(name for name, _ in servers), dbname="walt",
            port=",".join(str(port) for _, port in servers),
        )
        found = [parse_dsn(one) for one in places(dsn)]
        self.assertEqual([(one["host"], int(one["port"])) for one in found], servers)

    def test_mistakes(self) -> None:
        """What is no connection string, or has not one port for each server, is told in words."""
        self.assertIn("database.dsn", str(self.assertRaises(Unavailable, places, "nonsense")))
        told = str(self.assertRaises(Unavailable, places, "host=a,b port=1,2,3"))
        self.assertIn("3 values of port for 2 servers", told)
        told = str(self.assertRaises(Unavailable, places, "host=a,b hostaddr=10.0.0.1"))
        self.assertIn("1 values of host", told)
