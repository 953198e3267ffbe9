"""No name becomes a line of a configuration that it should not, nor a part of a statement."""

from __future__ import annotations

import ast
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.devices import FakeDeviceStore
from tests.fakes.hostile import HOSTILE
from walt.common.errors import Invalid
from walt.server.adapters.nfs import ganesha_config, kernel
from walt.server.adapters.nfs.exports import exports_of
from walt.server.adapters.postgres.log_queries import of_lines, of_streams
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.logs.model import LogQuery
from walt.server.domain.network.firewall import FirewallConfig
from walt.server.domain.network.firewall import render as render_rules
from walt.server.domain.network_services import boot_tree, dhcp, dns
from walt.server.domain.network_services.node_exports import export_plan
from walt.server.domain.network_services.secondary import secondary_networks

MAC, IP = "52:54:00:00:00:01", "192.168.1.2"
IMAGE_ID = "0123456789abcdef" * 4
NETWORK = IPv4Network("192.168.1.0/24")
INTERFACE = IPv4Interface("192.168.1.1/24")


def devices(value: str) -> list[Device]:
    """Return devices with a hostile value in each place."""
    sane = {"mac": MAC, "name": "node-1", "ip": IP, "model": "pc-x86-64", "image": "ann/x:latest"}
    return [
        Device(**{"type": "node", **sane, key: text})  # type: ignore[arg-type]
        for key in sane if key != "ip" for text in (value, f"node-1{value}")
    ] + [Device(MAC, "node-1", "node", IP, vpn_mac=value)]


class ConfigurationTests(SynchronousTestCase):
    """Files that daemons read: a value of the database that is not valid is left out."""

    def test_daemons(self) -> None:
        """dhcpd, named and the boot tree."""
        for value in HOSTILE:
            for device in devices(value):
                text = dhcp.render(dhcp.dhcp_config(INTERFACE, [device]))
                for line in text.splitlines():
                    if line.lstrip().startswith("host "):
                        self.assertRegex(line, (
                            r'^    host [A-Za-z0-9-]+ \{ hardware ethernet [0-9a-f:]{17}; '
                            r'fixed-address [0-9.]+; option host-name "[A-Za-z0-9-]+"; \}$'
                        ))
                zones = dns.zones(dns.dns_config(IPv4Address("192.168.1.1"), NETWORK, [device]), 1)
                for name, zone in zones.items():
                    if name in map(dns.loopback_zone_file, dns.LOOPBACK_ZONES):
                        continue  # nothing of the database is there
                    for line in zone.splitlines()[8:]:
                        self.assertRegex(line, r"^[\w-]+ IN (A|PTR|CNAME) [\w.-]+$")
                tree = boot_tree.boot_tree(INTERFACE, [device], {str(device.image): IMAGE_ID})
                for name in (*tree.dirs, *tree.kept, *tree.links):
                    self.assertRegex(name, r"^[A-Za-z0-9:._/-]+$")
                    self.assertNotIn("..", name.split("/"))

    def test_exports(self) -> None:
        """The owner of a node names a directory, never a way out of it; paths are quoted."""
        for value in (*HOSTILE, "../../../../etc/x:latest", "../x:latest", "./x", "/x"):
            registry = DeviceRegistry(FakeDeviceStore(), NETWORK)
            node = Device(MAC, "node-1", "node", IP, model="pc-x86-64", image=value)
            self.successResultOf(Deferred.fromCoroutine(registry.put(node)))
            plan = export_plan(registry, {}, (), Path("/nodes"), [Path("/nodes") / MAC])
            self.assertEqual([one.persist for one in plan.nodes], [None], value)
        image = ImageExport(IMAGE_ID, Path('/srv/a b"#\n(rw)'), (IP,))
        plan = ExportPlan(NETWORK, (image,), (NodeExport(MAC, IP, "node-1", IMAGE_ID, None),))
        lines = kernel.render_images(plan, Path("/nodes")).splitlines()
        self.assertTrue(lines[-1].startswith("/srv/a\\040b\\042\\043\\012(rw) "))
        (export,) = exports_of(plan).by_key.values()
        with self.assertRaises(ValueError):
            ganesha_config.record(7, export)
        for value in HOSTILE:
            for fields in ((value, IP, "n1"), (MAC, value, "n1"), (MAC, IP, value)):
                with self.assertRaises(ValueError):
                    NodeExport(*fields, None, None)

    def test_firewall(self) -> None:
        """Networks that reach the packet filter are those that the rules accept."""
        for value in HOSTILE:
            node = Device(MAC, "v", "node", IP, virtual=True, conf={"networks": value})
            self.assertEqual(secondary_networks([node]), ())
        text = render_rules(FirewallConfig(NETWORK, (IP,), None, "walt-net", ("home-net",)))
        self.assertIn('iifname "home-net" oifname "home-net" accept', text)


class SqlTests(SynchronousTestCase):
    """Statements are constants: values are parameters."""

    def test_statements(self) -> None:
        """What is put together for a statement is constants (upper case) and their functions."""
        made = []
        for path in Path(kernel.__file__).parent.parent.joinpath("postgres").glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args:
                    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    if called in ("execute", "query", "runQuery", "runOperation", "SQL"):
                        made += [f"{path.name}: {name}" for name in variables(node.args[0])]
        self.assertEqual(made, [])

    def test_log_query(self) -> None:
        """The filters of a log query are parameters, whatever they hold."""
        for value in HOSTILE:
            try:
                query = LogQuery(frozenset([value]), value, value, 1.0, 2.0)
            except Invalid:
                continue  # no regular expression
            harmless = LogQuery(frozenset(["x"]), "x", "x", 1.0, 2.0)
            found, same = (
                of_lines(asked, of_streams(asked)) for asked in (query, harmless)
            )
            self.assertEqual(found.text, same.text)
            self.assertEqual(found.values, [[value], [value], value, value, 1.0, 1.0, 2.0])


def variables(statement: ast.expr) -> list[str]:
    """Return the variables inside a text that an expression makes."""
    if not isinstance(statement, (ast.JoinedStr, ast.BinOp)):
        return []
    functions = {
        id(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)
    }
    return [
        node.id for node in ast.walk(statement)
        if isinstance(node, ast.Name) and id(node) not in functions and not node.id.isupper()
    ]
