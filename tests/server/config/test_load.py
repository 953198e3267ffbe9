from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import ConfigurationError
from walt.server.config.load import load, parse
from walt.server.config.model import LogArchive, Nbfs, Paths, Registry, Vpn

GOOD = "network:\n  walt-net:\n    ip: 192.168.183.1/24\n"


class DefaultsTests(SynchronousTestCase):
    def test_smallest_file(self) -> None:
        """An address of walt-net is enough."""
        config = parse(GOOD)
        self.assertEqual(str(config.server_ip), "192.168.183.1")
        self.assertEqual(str(config.subnet), "192.168.183.0/24")
        self.assertEqual(config.paths, Paths())
        self.assertEqual(config.registries, (Registry("hub", "docker-hub"),))
        self.assertEqual((config.accel, config.remote_clients), ("auto", "tls"))
        self.assertEqual((config.reconnect_grace, config.log_retention_days), (180, None))
        self.assertEqual(config.services.http_port, 80)
        self.assertEqual(config.services.lldp, True)
        self.assertEqual(config.services.snmp_community, "private")
        self.assertFalse(config.vpn.enabled)

    def test_whole_file(self) -> None:
        """Every key is read."""
        config = parse("""
state-dir: /srv/walt
runtime-dir: /run/w2
cache-dir: /srv/cache
log-dir: /srv/log
network:
  namespace: walt-w2
  walt-net: {raw-device: eth1, vlan: 12, ip: 10.0.0.1/20}
  walt-adm: {raw-device: eth1, vlan: 13, ip: dhcp}
registries:
  - {label: hub, api: docker-hub, description: Docker}
  - {label: mine, api: docker-registry-v2, host: reg.lan, port: 5000, protocol: http, auth: none}
vpn: {enabled: true, ssh-entrypoint: "a.lan:2222", http-entrypoint: b.lan, boot-mode: enforced,
      ssh-port: 2022}
database: {mode: external, dsn: "host=/run/pg dbname=walt"}
services: {runner: children, nfs: ganesha, nfsd: {service-name: nfs.service},
           http: {port: 8080, host-port: 0}, lldp: {enabled: false, community: lab-7},
           nbfs: {enabled: true, exports-dir: /srv/nbfs, control-socket: /run/ctl}}
switches: {save-power-after: 60, reported: convert}
virtual: {accel: tcg}
images: {storage: system, runtime: runc, build-isolation: chroot, ulimits: ["nofile=1024:1024"],
         git-networks: [127.0.0.0/8, "::1/128"], git-identity: /etc/walt/git.key}
security: {remote-clients: open}
logs: {retention: 30, archive: {to: "s3://walt.logs/lab/a", after: 7, endpoint: "http://m:9000",
       region: eu-west-1, credentials: /etc/walt/s3}}
boot: {reconnect-grace: 0}
""")
        self.assertEqual(config.namespace, "walt-w2")
        self.assertEqual(config.networks["walt-net"].vlan, 12)
        self.assertEqual(config.networks["walt-adm"].ip, "dhcp")
        self.assertEqual([one.label for one in config.registries], ["hub", "mine"])
        self.assertEqual(config.vpn, Vpn(True, "a.lan:2222", "b.lan", "enforced", 2022))
        self.assertEqual(config.database.dsn, "host=/run/pg dbname=walt")
        self.assertEqual(config.services.http_host_port, 0)
        self.assertEqual(config.services.lldp, False)
        self.assertEqual(config.services.snmp_community, "lab-7")
        self.assertEqual(config.services.nbfs, Nbfs(True, Path("/srv/nbfs"), Path("/run/ctl")))
        self.assertEqual((config.power_saving, config.reported_switches), (60, "convert"))
        self.assertEqual(config.images.ulimits, ("nofile=1024:1024",))
        self.assertEqual([str(one) for one in config.images.git_networks],
                         ["127.0.0.0/8", "::1/128"])
        self.assertEqual(config.images.git_identity, Path("/etc/walt/git.key"))
        self.assertEqual((config.log_retention_days, config.reconnect_grace), (30, 0))
        self.assertEqual(config.log_archive, LogArchive(
            7, None, "walt.logs", "lab/a/", "http://m:9000", "eu-west-1", "/etc/walt/s3"
        ))
        directory = parse(GOOD + "logs: {archive: {to: /srv/logs}}\n").log_archive
        self.assertEqual(directory, LogArchive(directory="/srv/logs"))

    def test_json(self) -> None:
        """The JSON of former versions is YAML too, comments included."""
        config = parse('{ # ours\n "network": {"walt-net": {"ip": "10.1.1.1/24"}}}')
        self.assertEqual(str(config.server_ip), "10.1.1.1")


class ErrorsTests(SynchronousTestCase):
    def errors(self, text: str) -> list[str]:
        """Return the errors of a file."""
        return str(self.assertRaises(ConfigurationError, parse, text)).splitlines()

    def test_each_error(self) -> None:
        """Each mistake is named by its key, in one line."""
        for extra, expected in (
            ("foo: 1", "foo: unknown key"),
            ("state-dir: relative", "state-dir: expected an absolute path"),
            ("log-dir: /a/../b", "log-dir: expected an absolute path"),
            ("state-dir: 5", "state-dir: expected a text"),
            (f"runtime-dir: /{'x' * 40}", "runtime-dir: longer than 40 characters"),
            ("registries: 5", "registries: expected a list"),
            ("registries: [5]", "registries[0]: expected a mapping"),
            ("registries: [{label: x}]", "registries[0].api: missing"),
            ("registries: [{api: docker-registry-v2, label: x}]", "registries[0].host: missing"),
            ("registries: [{api: docker-hub, label: walt}]", "registries[0].label: 'walt' is"),
            ("registries: [{api: docker-hub, label: a}, {api: docker-hub, label: hub}]",
             "registries[0].label: 'a' is reserved"),
            ("registries: [{api: docker-hub, label: hub}, {api: docker-hub, label: hub}]",
             "two registries have the same label"),
            ("registries: [{api: docker-registry-v2, label: x, host: 'a b'}]", "is not valid"),
            ("registries: [{api: docker-registry-v2, label: x, host: a, port: 70000}]",
             "registries[0].port: expected a whole number"),
            ("database: {mode: external}", "database.dsn: missing"),
            ("database: {mode: other}", "database.mode: expected one of"),
            ("services: {nbfs: {exports-dir: here}}", "services.nbfs.exports-dir: expected an abs"),
            (f"services: {{nbfs: {{control-socket: /{'x' * 107}}}}}", "longer than 107 characters"),
            ("switches: {reported: maybe}", "switches.reported: expected one of"),
            ("services: {runner: docker}", "services.runner: expected one of"),
            ("services: {lldp: {community: 'a b'}}", "services.lldp.community: 'a b' is not"),
            ("services: {lldp: {community: \"a\\nrwcommunity b\"}}", "services.lldp.community"),
            ("services: {lldp: {enabled: yes-please}}", "services.lldp.enabled: expected true or"),
            ("services: {http: {port: true}}", "services.http.port: expected a whole number"),
            ("services: []", "services: expected a mapping"),
            ("virtual: {accel: xen}", "virtual.accel: expected one of"),
            ("virtual: {accel: [a]}", "virtual.accel: expected one of"),
            ("images: {git-networks: 10.0.0.0/8}", "images.git-networks: expected a list"),
            ("images: {git-networks: [x]}", "images.git-networks: expected a list"),
            ("images: {git-identity: id_rsa}", "images.git-identity: expected the absolute path"),
            ("images: {ulimits: [a b]}", "images.ulimits: expected a list"),
            ("images: {runtime: --evil}", "images.runtime: '--evil' is not valid here"),
            ("security: {remote-clients: maybe}", "security.remote-clients: expected one of"),
            ("logs: {retention: 0}", "logs.retention: expected a whole number from 1"),
            ("logs: {archive: 3}", "logs.archive: expected a mapping"),
            ("logs: {archive: {after: 9}}", "logs.archive.to: missing; give a directory, or s3"),
            ("logs: {archive: {to: here}}", "logs.archive.to: expected an absolute path, or s3"),
            ("logs: {archive: {to: /a/../b}}", "logs.archive.to: expected an absolute path"),
            ("logs: {archive: {to: 's3://b/a'}}", "logs.archive.to: expected an absolute path"),
            ("logs: {archive: {to: 's3://bucket/-a b'}}", "logs.archive.to: expected an absolute"),
            ("logs: {archive: {to: 's3://bucket/a/../b'}}", "logs.archive.to: expected an absol"),
            ("logs: {archive: {to: 's3://bucket/a/./b'}}", "logs.archive.to: expected an absol"),
            ("logs: {archive: {to: /a, region: x}}", "logs.archive.to: a directory has no"),
            ("logs: {archive: {to: 's3://bucket', endpoint: 'ftp://x'}}",
             "logs.archive.endpoint: 'ftp://x' is not valid here"),
            ("logs: {archive: {to: 's3://bucket', endpoint: 'http://u:p@x'}}",
             "logs.archive.endpoint: 'http://u:p@x' is not valid here"),
            ("logs: {archive: {to: 's3://bucket', region: 'a b'}}",
             "logs.archive.region: 'a b' is not valid here"),
            ("logs: {archive: {to: 's3://bucket', credentials: here}}",
             "logs.archive.credentials: expected the absolute path of a file"),
            ("logs: {retention: 30, archive: {to: /a}}",
             "logs.archive.after: must be less than logs.retention"),
            ("logs: {archive: {to: /a, every: 3}}", "logs.archive.every: unknown key"),
            ("boot: {reconnect-grace: 1.5}", "boot.reconnect-grace: expected a whole number"),
            ("vpn: {enabled: please}", "vpn.enabled: expected true or false"),
            ("vpn: {ssh-entrypoint: -oProxyCommand=x}", "vpn.ssh-entrypoint: "),
            ("vpn: {ssh-entrypoint: 'a b'}", "vpn.ssh-entrypoint: "),
            ("vpn: {http-entrypoint: 'a:x'}", "vpn.http-entrypoint: "),
            ("vpn: {boot-mode: lax}", "vpn.boot-mode: expected one of"),
            ("vpn: {ssh-port: 0}", "vpn.ssh-port: expected a whole number"),
        ):
            self.assertTrue(
                any(expected in line for line in self.errors(GOOD + extra)), (extra, expected)
            )

    def test_half_a_vpn(self) -> None:
        """Incomplete or switched off, it is off; complete without `enabled`, it is on."""
        whole = "ssh-entrypoint: a.lan, http-entrypoint: b.lan, boot-mode: permissive"
        for text, enabled in (
            (f"{{{whole}}}", True), (f"{{enabled: true, {whole}}}", True),
            (f"{{enabled: false, {whole}}}", False), ("{enabled: true}", False),
            ("{enabled: true, ssh-entrypoint: a.lan, boot-mode: enforced}", False), ("", False),
        ):
            self.assertEqual(parse(f"{GOOD}vpn: {text}\n").vpn.enabled, enabled, text)

    def test_network_errors(self) -> None:
        """Addresses must be usable by an interface and leave room for nodes."""
        for network, expected in (
            ("", "network.walt-net: missing"),
            ("walt-net:", "network.walt-net.ip: missing"),
            ("walt-net: {ip: dhcp}", "expected an address with its prefix"),
            ("walt-net: {ip: 192.168.1.1}", "expected an address with its prefix"),
            ("walt-net: {ip: 192.168.1.0/24}", "is not a host address"),
            ("walt-net: {ip: 192.168.1.255/24}", "is not a host address"),
            ("walt-net: {ip: 192.168.1.1/31}", "leaves no address for nodes"),
            ("walt-net: {ip: 127.0.0.1/8}", "cannot be the address of an interface"),
            ("walt-net: {ip: 224.0.0.1/4}", "cannot be the address of an interface"),
            ("walt-net: {ip: 10.0.0.1/24, vlan: 4095}", "network.walt-net.vlan: expected"),
            ("walt-net: {ip: 10.0.0.1/24, vlan: 5}", "network.walt-net.vlan: needs raw-device"),
            ("walt-net: {ip: 10.0.0.1/24, raw-device: '-x'}", "raw-device: '-x' is not valid"),
            ("a-very-long-interface-name: {}", "not a valid interface name"),
            ("namespace: ../x", "network.namespace: '../x' is not valid here"),
        ):
            found = self.errors(f"network: {{{network}}}" if ":" not in network
                                else f"network:\n  {network}")
            self.assertTrue(any(expected in line for line in found), (network, found))

    def test_shared_interface(self) -> None:
        """Two networks on one interface need different VLANs."""
        text = "network:\n  walt-net: {ip: 10.0.0.1/24, raw-device: eth0}\n" \
               "  walt-adm: {ip: dhcp, raw-device: eth0}\n"
        self.assertIn("without different VLANs", self.errors(text)[0])

    def test_all_at_once(self) -> None:
        """Nobody has to correct one error to see the next one."""
        self.assertEqual(len(self.errors("foo: 1\nbar: 2\nlogs: {retention: no}\n")), 4)

    def test_state_directory(self) -> None:
        """A directory that daemons cannot traverse is an error that tells the command."""
        closed = Path(self.mktemp()).absolute()
        closed.mkdir(mode=0o700)
        found = self.errors(GOOD + f"state-dir: {closed}/state\n")
        self.assertIn(f"run: chmod o+x {closed}", found[0])

    def test_persist(self) -> None:
        """The size of persistent data has a unit, and bounds."""
        self.assertEqual(parse(GOOD).persist.size, 4 << 30)
        for text, size in (("512M", 512 << 20), ("2T", 2 << 40)):
            self.assertEqual(parse(GOOD + f"persist:\n  size: {text}\n").persist.size, size)
        for text in ("4", "4g", "0G", "1M", "17T", "-1G", "1.5G", "[]"):
            self.assertEqual(len(self.errors(GOOD + f"persist:\n  size: {text}\n")), 1, text)

    def test_not_yaml(self) -> None:
        """What is not YAML is said in one line."""
        for text in ("a: [", "\t", "a: b: c", "!!python/object:os.system x", "a: 1\na: 2", "\0",
                     "{[{},)t]}", "? [1, [2]]\n: x", "2020-13-45", "!!int x"):
            self.assertEqual(len(self.errors(text)), 1, text)

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """Any text is a configuration or a ConfigurationError."""
        try:
            parse(text)
        except ConfigurationError:
            return

    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from([
                "network", "walt-net", "ip", "vlan", "raw-device", "registries", "label", "api",
                "host", "port", "vpn", "enabled", "database", "mode", "dsn", "services", "http",
                "nfsd", "images", "ulimits", "virtual", "accel", "logs", "retention", "boot",
                "state-dir", "runtime-dir", "namespace", "security", "remote-clients", "persist",
                "size",
            ]), inner, max_size=5,
        ), max_leaves=20,
    ))
    def test_any_structure(self, value: object) -> None:
        """Any values under known keys are a configuration or a ConfigurationError."""
        import json

        try:
            parse(json.dumps(value))
        except ConfigurationError:
            return


class FileTests(SynchronousTestCase):
    def test_missing(self) -> None:
        """A missing file tells what to do."""
        error = self.assertRaises(ConfigurationError, load, Path("/nowhere/server.conf"))
        self.assertIn("create it", str(error))

    def test_unreadable(self) -> None:
        """A directory, or bytes that are not text, are errors."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.assertRaises(ConfigurationError, load, directory)
        (directory / "conf").write_bytes(b"\xff\xfe")
        self.assertRaises(ConfigurationError, load, directory / "conf")

    def test_errors_name_the_file(self) -> None:
        """The file is named above its errors."""
        path = Path(self.mktemp())
        path.write_text("foo: 1\n")
        error = str(self.assertRaises(ConfigurationError, load, path))
        self.assertTrue(error.startswith(f"errors in {path}:\n  "))
