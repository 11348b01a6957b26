"""Checking and repairing the data folder of a stopped broker, as `rabbitry broker check` and `repair` do."""

from __future__ import annotations

from rabbitry.broker._store.rescue import Survey, alone, finish, rebuild, room_for_repair, survey

__all__ = ["Survey", "alone", "finish", "rebuild", "room_for_repair", "survey"]
