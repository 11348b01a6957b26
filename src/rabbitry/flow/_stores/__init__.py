"""Stores by URL, in which workers keep what they must know of each other: parts of jobs, and keys that are done.

`sql` is for SQLite and PostgreSQL, `redis` for Redis. Joins have a store in each, `join_sql` and `join_redis`, with
the answers of `join_answers`. So have idempotent stages and unique messages: `once_sql` and `once_redis`, with the
claims of `once_claim`. The libraries come with extras: a store's module is imported when it is opened.
"""
