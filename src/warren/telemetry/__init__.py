"""What every running node reports of itself, and the collector of such reports, will live here."""
