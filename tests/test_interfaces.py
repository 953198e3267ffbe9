"""Whoever provides an interface does it whole: adapters, services, and the fakes of tests."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
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
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if found.name not in LOADED_BY_OTHERS
    ]


def classes(package: ModuleType) -> set[type]:
    """Return the classes that the modules of a package define."""
    return {
        found for module in modules(package) for found in vars(module).values()
        if isinstance(found, type) and found.__module__ == module.__name__
    }


def interfaces() -> set[InterfaceClass]:
    """Return the interfaces that the domain declares."""
    return {
        found for module in modules(importlib.import_module("walt.server.domain"))
        for found in vars(module).values()
        if isinstance(found, InterfaceClass) and found is not Interface
        and found.__module__ == module.__name__
    }


class InterfaceTests(SynchronousTestCase):
    def test_what_provides_an_interface_has_all_of_it(self) -> None:
        """Each method, with its arguments."""
        declared = interfaces()
        self.assertGreater(len(declared), 30)
        provided = set()
        for provider in classes(walt.server) | classes(tests.fakes):
            for interface in implementedBy(provider):
                if interface in declared:
                    verifyClass(interface, provider)
                    provided.add(interface.__name__)
        self.assertEqual({interface.__name__ for interface in declared} - provided, set())

    def test_each_interface_has_one_fake(self) -> None:
        """So that rules are tried without the outside, and in the same way everywhere."""
        declared = interfaces()
        fakes = Counter(
            interface.__name__ for fake in classes(tests.fakes)
            for interface in implementedBy(fake) if interface in declared
        )
        self.assertEqual(
            {interface.__name__: fakes[interface.__name__] for interface in declared},
            {interface.__name__: 1 for interface in declared},
        )
