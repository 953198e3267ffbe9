"""Nodes as their roles ask for them: settings, images, boots; and what they are then."""

from __future__ import annotations

import time

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.experiment.collecting import look_around
from walt.client.experiment.holding import layers_of
from walt.client.scripting.link import LINK
from walt.client.scripting.nodes import NodeSet, find

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from walt.client.experiment.archive import Folder
    from walt.client.experiment.holding import Holding
    from walt.client.experiment.lease import Lease
    from walt.client.experiment.model import Experiment, Role
    from walt.client.scripting.running import Result

# What is asked of each node: its kernel, its processor, how many of these.
FACTS = "uname -srm; sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1; nproc"


class Preparing:
    """Prepares the nodes of a run; `tell` shows a line about how it goes."""

    def __init__(
        self, experiment: Experiment, folder: Folder, manifest: dict[str, Any], lease: Lease,
        holding: Holding, tell: Callable[[str], object],
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._manifest = manifest
        self._roles: dict[str, list[str]] = manifest["roles"]
        self._names = sorted({name for names in self._roles.values() for name in names})
        self._lease = lease
        self._holding = holding
        self._tell = tell

    def boot(self, force: bool, *, measured: bool) -> None:
        """Boot all nodes with the image and the settings of their role, and wait for them.

        `force`: nodes of others, too; `measured`: points of this run were measured with the
        images that it holds. Raises Failure, LeaseLost.
        """
        experiment = self._experiment
        for role in experiment.roles:
            settings = self._settings(role)
            if settings:
                self._holding.keep(self._roles[role.name], settings)
                self._folder.write_manifest(self._manifest)
                self._lease.check()
                LINK.call(
                    "cs.devices.set_config", devices=",".join(self._roles[role.name]),
                    settings=[f"{key}={value}" for key, value in settings.items()],
                    nodes_only=True,
                )
        began = time.monotonic()
        for role in experiment.roles:
            models = {
                node.name: node.model or "" for node in find(",".join(self._roles[role.name]))
            }
            try:
                images = self._holding.hold(role, models, measured=measured)
            finally:
                self._folder.write_manifest(self._manifest)
            for image, nodes in images.items():
                names = ",".join(nodes)
                self._lease.check()
                self._tell(f"booting {names} with {role.image}")
                if not NodeSet(find(names)).boot(image, force=force):
                    raise Failure(f"{names} could not be rebooted")
        try:
            NodeSet(find(",".join(self._names))).wait(experiment.limits.boot)
        except TimeoutException:
            late = [name for name in self._names if not find(name)[0].booted]
            raise Failure(
                f"not booted after {experiment.limits.boot:g} s: {', '.join(late)}"
                f" (`walt node boots {','.join(late)}` tells the stage)"
            ) from None
        self._tell(f"booted in {time.monotonic() - began:.1f} s")

    def _settings(self, role: Role) -> dict[str, str]:
        """Return the settings of a role, the networks of its links among them."""
        networks = self._experiment.networks(role.name, self._manifest["run"])
        return {
            **role.settings,
            **({"networks": ",".join(["walt-net", *networks])} if networks else {}),
        }

    def note_facts(self, told: Mapping[str, Result]) -> None:
        """Note what the nodes are in the manifest; `told` is what FACTS printed on each."""
        images: dict[str, str] = {}
        linked = {  # their networks have names of this run: links tell what they are
            name for role in self._experiment.roles for name in self._roles[role.name]
            if self._experiment.networks(role.name, self._manifest["run"])
        }
        for node in find(",".join(self._names)):
            kernel, cpu, processors = (*told[node.name].output.splitlines(), "", "", "")[:3]
            booted = node.image.fullname.partition(" ")[0]
            fullname = self._holding.original(booted)
            images[booted] = fullname
            self._manifest["nodes"][node.name] = {
                "mac": node.mac, "ip": node.ip, "model": node.model, "virtual": node.virtual,
                "image": fullname, "kernel": kernel, "cpu": cpu, "processors": processors,
                "settings": {
                    name: value for name, value in node.config._values().items()
                    if name != "networks" or node.name not in linked
                },
            }
        # The id of an image is the hash of its configuration, which lists its layers.
        found = {images[name]: row for name, row in layers_of(images).items()}
        self._manifest["images"] = {name: row["id"] for name, row in found.items()}
        self._manifest["layers"] = {name: row["layers"] for name, row in found.items()}
        self._manifest["walt"]["server"] = LINK.server_version
        self._folder.write_manifest(self._manifest)
        look_around(self._folder.path, self._names)
