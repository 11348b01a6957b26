"""App and its stages, workers, settlement, retries and dead letters.

Public modules: `app`, `stage`, `message`, `context`, `depends`, `middleware`, `key`, `batch`, `outgoing`, `schedule`,
`codec` and `exceptions` for handlers; `publisher`, `blocking` and `timing` (delays and expiry) for programs that
publish; `joining` and `once` (stages behind a store); `spec` (an app, frozen), `schemas` (its messages as a document),
`worker` and `wiring` for programs that run or look at apps.
"""

from __future__ import annotations

from rabbitry.flow.app import App
from rabbitry.flow.batch import Batch
from rabbitry.flow.context import Context
from rabbitry.flow.depends import Depends
from rabbitry.flow.key import Key
from rabbitry.flow.message import Message
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.schedule import Tick

__all__ = ["App", "Batch", "Context", "Depends", "Key", "Message", "Outgoing", "Tick"]
