"""Links between devices in PostgreSQL."""

from __future__ import annotations

from zope.interface import implementer

from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.domain.nodes.ports import ITopology


@implementer(ITopology)
class PostgresTopology:
    """The table topology, whose first MAC is the smaller one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def locate(self, node_mac: str, switch_mac: str, port: int | None) -> bool:
        """Record that a node is on a port of a switch; see ITopology."""

        async def work(one: Transaction) -> bool:
            known = await one.query(
                "SELECT CASE WHEN mac1 = %s THEN port2 ELSE port1 END FROM topology"
                " WHERE (mac1, mac2) = (least(%s, %s), greatest(%s, %s)) FOR UPDATE",
                (node_mac, node_mac, switch_mac, node_mac, switch_mac),
            )
            place = port if port is not None or not known else known[0][0]
            taken = await one.query(
                "SELECT 1 FROM topology WHERE ((mac1 = %s AND port1 = %s)"
                " OR (mac2 = %s AND port2 = %s)) AND %s NOT IN (mac1, mac2)",
                (switch_mac, place, switch_mac, place, node_mac),
            )
            if taken:
                return False
            await one.execute("DELETE FROM topology WHERE %s IN (mac1, mac2)", (node_mac,))
            first = node_mac < switch_mac
            await one.execute(
                "INSERT INTO topology (mac1, mac2, port1, port2) VALUES (%s, %s, %s, %s)",
                (
                    min(node_mac, switch_mac), max(node_mac, switch_mac),
                    None if first else place, place if first else None,
                ),
            )
            return not known or known[0][0] != place

        return await self._database.transaction(work)
