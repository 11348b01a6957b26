"""Imports between a package and its own modules; import-linter's contracts hold all others (pyproject.toml)."""

import grimp


def test_no_package_imports_a_module_of_its_own_that_imports_the_package() -> None:
    graph = grimp.build_graph("rabbitry", exclude_type_checking_imports=False, cache_dir=None)
    found = [
        f"{module} -> {package}"
        for module in graph.modules
        for package in graph.find_modules_directly_imported_by(module)
        if module.startswith(f"{package}.") and graph.chain_exists(importer=package, imported=module)
    ]
    assert sorted(found) == []
