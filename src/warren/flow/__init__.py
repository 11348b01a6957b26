"""App and its stages, workers, settlement, retries and dead letters will live here."""
