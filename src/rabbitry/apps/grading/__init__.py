"""The assignment correction: students, demonstrators, assistants, the coordinator.

Bottom up: message.py and roles.py say what is passed on, modules.py what is configured, records/ keeps what a
role must not forget, stages.py makes a `rabbitry.App` of it, service.py runs it.

For Rabbitry alone, which takes `plugin` by its entry point.
"""
