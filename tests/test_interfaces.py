"""Whoever provides a port does it whole: adapters, services, and the fakes of tests."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementedBy
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyClass

import tests.fakes
import walt.server

LOADED_BY_OTHERS = {"walt.server.adapters.nbdkit.areas"}  # a plugin of nbdkit


def modules(package: ModuleType) -> list[ModuleType]:
    """Return the modules below a package."""
    return [
        importlib.import_module(one.name)
        for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if one.name not in LOADED_BY_OTHERS
    ]


def classes(package: ModuleType) -> set[type]:
    """Return the classes that the modules of a package define."""
    return {
        found for module in modules(package) for found in vars(module).values()
        if isinstance(found, type) and found.__module__ == module.__name__
    }


def ports() -> set[InterfaceClass]:
    """Return the interfaces that the domain declares."""
    return {
        found for module in modules(importlib.import_module("walt.server.domain"))
        for found in vars(module).values()
        if isinstance(found, InterfaceClass) and found is not Interface
        and found.__module__ == module.__name__
    }


# Sessions on nodes are programs of this machine in tests (tests.fakes.local_nodes).
OTHERWISE = {"ISession", "ISessions"}


class PortsTests(SynchronousTestCase):
    def test_what_provides_a_port_has_all_of_it(self) -> None:
        """Each method, with its arguments."""
        found = ports()
        self.assertGreater(len(found), 30)
        provided = set()
        for one in classes(walt.server) | classes(tests.fakes):
            for port in implementedBy(one):
                if port in found:
                    verifyClass(port, one)
                    provided.add(port.__name__)
        self.assertEqual({port.__name__ for port in found} - provided, set())

    def test_each_port_has_a_fake(self) -> None:
        """So that rules are tried without the outside."""
        faked = {port.__name__ for one in classes(tests.fakes) for port in implementedBy(one)}
        self.assertEqual({port.__name__ for port in ports()} - faked - OTHERWISE, set())
