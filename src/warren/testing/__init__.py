"""The pytest plugin (a broker, and a harness for an App) will live here."""
