"""Budgets: share of a core, bytes a second, bytes in memory."""

import asyncio

from rabbitry.apps.crawl.crawler.budgets import CPU, Bandwidth, Room


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_cpu_share_is_kept_over_time() -> None:
    clock, used = Clock(), Clock()
    cpu = CPU(0.25, used=used, clock=clock)
    for _ in range(1000):
        used.now += 0.01
        clock.now += 0.001 + cpu.pause()
    assert abs((used.now - 100) / (clock.now - 100) - 0.25) < 0.01


def test_cpu_that_was_not_used_is_not_saved_up() -> None:
    clock, used = Clock(), Clock()
    cpu = CPU(0.5, used=used, clock=clock)
    clock.now += 3600
    assert cpu.pause() == 0
    used.now += 1
    assert 1.5 < cpu.pause() <= 2


def test_cpu_without_a_limit_never_pauses() -> None:
    assert CPU(None, used=iter(range(10**6)).__next__, clock=Clock()).pause() == 0


def test_bandwidth_is_kept_over_time() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock=clock)
    for _ in range(100):
        bandwidth.spend(500)
        clock.now += bandwidth.pause()
    assert 49 <= clock.now - 100 <= 50


def test_bandwidth_that_was_not_used_is_not_saved_up() -> None:
    clock = Clock()
    bandwidth = Bandwidth(1000, clock=clock)
    clock.now += 3600
    bandwidth.spend(2000)
    assert 1.7 < bandwidth.pause() <= 2
    assert Bandwidth(None).pause() == 0


async def test_the_oldest_body_continues_if_memory_is_full() -> None:
    room, first, second = Room(100), object(), object()
    room.hold(first, 60)
    room.hold(second, 60)
    assert room.is_full
    assert room.may_grow(first)
    assert not room.may_grow(second)
    room.came(first, 70)
    assert room.total == 130
    assert room.may_grow(second)  # the oldest one still waits
    room.release(first)
    room.release(first)
    assert (room.total, room.is_full) == (60, False)


async def test_no_body_continues_while_complete_ones_fill_the_memory() -> None:
    room, first, second = Room(100), object(), object()
    room.hold(first, 60)
    room.hold(second, 10)
    room.came(first, 100)
    assert not room.may_grow(second)
    assert not room.may_grow(object())
    room.release(first)
    assert room.may_grow(second)
    assert room.total == 10


async def test_tasks_that_wait_for_memory_are_woken() -> None:
    room, body = Room(10), object()
    room.hold(body, 10)
    waiting = asyncio.create_task(room.changed())
    await asyncio.sleep(0)
    room.release(body)
    await waiting
