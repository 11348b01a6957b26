"""The assignment correction, for people and for programs, will live here."""
