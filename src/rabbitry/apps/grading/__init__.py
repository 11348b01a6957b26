"""The assignment correction: students, demonstrators, assistants, coordinators.

Bottom up: message.py and roles.py define what roles exchange, modules.py is the configuration, records/ stores what
must survive a restart, stages.py makes a `rabbitry.App` of the roles, service.py runs it.

For Rabbitry alone, which loads `plugin` through its entry point.
"""
