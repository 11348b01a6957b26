"""The Dead letters view: an app's dead letters by group, looked at, replayed, edited and dropped."""
