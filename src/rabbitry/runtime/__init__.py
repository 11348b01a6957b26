"""The parts that all long-running programs of Rabbitry share: options, output, logging, signals, child processes.

Apps use `options` (what commands share), `output` (tables, errors, exit codes), `logging`, `service` (runs until a
signal) and `parent` (reports to `rabbitry up`): docs/apps.md shows how. The others are for Rabbitry alone: `accepting`,
`addresses`, `backoff`, `children`, `files`, `http`, `interrupt`, `io_thread`, `listening`, `loop_watchdog`,
`resources`, `tasks` and `tls`.
"""
