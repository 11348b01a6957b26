"""Who uses the dashboard: users and their passwords, sessions, and the role that each route needs.

`users` has the file of users, `sessions` the sessions and tokens of pages, `gate` decides about each request, `roles`
about each route, and `routes` has the page and the requests for signing in and out.
"""
