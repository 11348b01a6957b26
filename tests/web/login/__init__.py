"""Tests of the dashboard's login: passwords, users, sessions, roles and the gate before each request."""
