"""An OpenID Connect provider through which people sign in, beside the login by name and password.

`settings` reads the settings, and `provider` speaks with the provider and checks its tokens.
"""
