"""`rabbitry` with a broker that confirms before it writes: the tests of durability must catch it."""

import time

from rabbitry.broker._confirms import Confirms
from rabbitry.broker._store.batch import Batch, Found
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.cli import main

_apply = SQLiteStore.apply


def _confirm_at_once(journal: Journal, confirms: Confirms, up_to: int) -> None:
    confirms.confirm(up_to)


def _apply_later(store: SQLiteStore, batch: Batch) -> list[Found]:
    if batch.added:
        time.sleep(0.5)  # longer than a busy machine takes from a confirm to the kill
    return _apply(store, batch)


Journal.confirm = _confirm_at_once  # type: ignore[assignment, method-assign] # this is what the tests have to notice
SQLiteStore.apply = _apply_later  # type: ignore[assignment, method-assign] # likewise

if __name__ == "__main__":
    main()
