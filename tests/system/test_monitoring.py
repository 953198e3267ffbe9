"""The dashboard and the alert rules ask for what a live server tells."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.netns import sh
from walt.common import errors

METRIC = re.compile(r"\bwalt_[a-z_]+")
# What stands in the braces after a metric, and the labels that values are shown by.
SELECTED = re.compile(r"\b(walt_[a-z_]+)\{([^}]*)\}")
LABEL = re.compile(r"([a-z_]+)[!=]~?=?")
ADDED = {"instance", "job"}  # by Prometheus


def shipped(name: str) -> str:
    """Return a file that comes with the server."""
    return files("walt.server.monitoring").joinpath(name).read_text()


def expressions() -> list[tuple[str, str]]:
    """Return each expression, with what is shown of its labels."""
    found = []
    for panel in json.loads(shipped("grafana.json"))["panels"]:
        found += [(one["expr"], one["legendFormat"]) for one in panel["targets"]]
    rules: Any = YAML(typ="safe", pure=True).load(shipped("alerts.yml"))
    for group in rules["groups"]:
        found += [(one["expr"], one["annotations"]["summary"]) for one in group["rules"]]
    return found


class MonitoringTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_metrics_exist(self) -> None:
        """Each metric is told by the server, with each label."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()
        await platform.walt("node", "wait", "no-such-node")  # an error to count
        page = sh(
            "ip", "netns", "exec", platform.namespace, "curl", "--silent", "--fail",
            f"http://{platform.net}.1/metrics",
        )
        labels: dict[str, set[str]] = {}
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                labels.setdefault(sample.name, set()).update(sample.labels)
                values[sample.name] = sample.value
        asked = set()
        for expression, shown in expressions():
            names = METRIC.findall(expression)
            asked.update(names)
            for name in names:
                self.assertIn(name, labels, expression)
            for name, inside in SELECTED.findall(expression):
                self.assertLessEqual(set(LABEL.findall(inside)) - ADDED, labels[name], expression)
            told = set(re.findall(r"\{\{ ?(?:\$labels\.)?([a-z_]+) ?\}\}", shown)) - ADDED
            self.assertLessEqual(told, set().union(*(labels[name] for name in names)), shown)
        self.assertGreater(len(asked), 12)
        self.assertGreater(values["walt_disk_free_bytes"], 1 << 20)
        self.assertGreaterEqual(values["walt_disk_size_bytes"], values["walt_disk_free_bytes"])

    def test_codes(self) -> None:
        """Codes of errors that a rule leaves out are codes of ours."""
        known = {
            one.code for one in vars(errors).values()
            if isinstance(one, type) and issubclass(one, errors.WaltError)
        }
        (left_out,) = re.findall(r'code!~"([^"]+)"', shipped("alerts.yml"))
        self.assertLessEqual(set(left_out.split("|")), known)

    def test_commands(self) -> None:
        """Alerts say what to do, by commands that exist."""
        from walt.client import main

        for category, command in re.findall(r"walt ([a-z]+) ([a-z-]+)", shipped("alerts.yml")):
            self.assertIn(command, main.load(category), (category, command))
