"""The dashboard's users with their passwords and sessions, and the role that each route needs.

`users` reads and writes the file of users, `passwords` hashes, `accounts` checks names and passwords, `sessions` has
the sessions and the tokens of pages, `gate` checks each request, `roles` each route, `routes` has the page and the
requests for signing in and out, and `oidc_routes` the way through an OpenID Connect provider, which `oidc` speaks with.
"""
