"""The agent's cost: percent of a core and memory, at one sample a second to both exchanges, with a consumer."""

import asyncio
import json
import os
import subprocess
import sys
import time

import psutil
from tests.support.embedded import BrokerProcess

import rabbitry

SETTLE = 5.0
"""Seconds before the measurement starts: the agent's start costs more than a minute of samples."""
SECONDS = 60.0
_MIB = 1 << 20


async def _listen(url: str) -> None:
    """Declare a queue for each exchange of the agent, and consume it."""
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue("", exclusive=True)).name
        await channel.declare_exchange("pi_utilization")
        await channel.declare_exchange("system_info", "fanout", durable=True)
        await channel.bind_queue(queue, "pi_utilization", "bench")
        await channel.bind_queue(queue, "system_info")
        async with channel.consume(queue, no_ack=True) as deliveries:
            async for _ in deliveries:
                pass


async def _measure(url: str, *options: str) -> dict[str, object]:
    command = [sys.executable, "-m", "rabbitry", "monitor", "publish", "-k", "bench", *options]
    process = subprocess.Popen(command, env=os.environ | {"RABBITRY_BROKER": url}, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - it does not wait
    try:
        await asyncio.sleep(SETTLE)
        agent = psutil.Process(process.pid)
        before, since = agent.cpu_times(), time.monotonic()
        await asyncio.sleep(SECONDS)
        after, seconds = agent.cpu_times(), time.monotonic() - since
        peak = agent.memory_info().rss
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    busy = after.user + after.system - before.user - before.system
    return {
        "agent": " ".join(options) or "alone",
        "percent_of_a_core": round(100 * busy / seconds, 3),
        "start_cpu_seconds": round(before.user + before.system, 2),
        "rss_mib": round(peak / _MIB, 1),
        "seconds": round(seconds),
    }


async def _run(url: str) -> None:
    listening = asyncio.create_task(_listen(url))
    for options in ((), ("--http", "0")):
        print(json.dumps(await _measure(url, *options)), flush=True)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


def main() -> int:
    """Measure the agent in each configuration and print a JSON line for each."""
    with BrokerProcess(anew=True) as broker:
        asyncio.run(_run(broker.url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
