"""The parts of the dashboard's benchmark, a module for each kind."""
