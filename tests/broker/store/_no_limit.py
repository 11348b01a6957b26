"""`rabbitry`, whose broker raises the alarm for its disk only when that is full."""

from rabbitry.broker import _alarms
from rabbitry.cli import main

if __name__ == "__main__":
    _alarms.DISK_FREE_LIMIT = 0  # type: ignore[misc] # the command has no option for it
    main()
