"""Imports that the import contracts in pyproject.toml do not cover.

These are imports of a package by its own modules, and imports of private modules by other packages.
"""

import grimp
import pytest


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports, those for type checkers included."""
    return grimp.build_graph("rabbitry", exclude_type_checking_imports=False, cache_dir=None)


def test_no_package_imports_a_module_of_its_own_that_imports_the_package(graph: grimp.ImportGraph) -> None:
    found = [
        f"{module} -> {package}"
        for module in graph.modules
        for package in graph.find_modules_directly_imported_by(module)
        if module.startswith(f"{package}.") and graph.chain_exists(importer=package, imported=module)
    ]
    assert sorted(found) == []


# Not yet: amqp and apps, whose private modules others import.
@pytest.mark.parametrize("name", ["broker", "cli", "flow", "runtime", "telemetry", "testing", "web"])
def test_private_modules_of_a_package_are_imported_within_it_alone(graph: grimp.ImportGraph, name: str) -> None:
    within = f"rabbitry.{name}."
    private = {module for module in graph.modules if module.startswith(within) and "._" in module[len(within) - 1 :]}
    found = [
        f"{importer} -> {module}"
        for module in private
        for importer in graph.find_modules_that_directly_import(module)
        if not f"{importer}.".startswith(within)
    ]
    assert sorted(found) == []
