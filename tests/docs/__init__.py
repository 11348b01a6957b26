"""Every command and block of the README and docs/, run as printed.

`blocks` reads the pages, `machine` runs what they say on a machine of its own: a network namespace, in which all ports
are free and the examples' host names exist. There `rabbitry` is forked from a process that has imported everything
(`command`, `namespaces`), while `.venv/bin/rabbitry` and programs are started as users do.
"""
