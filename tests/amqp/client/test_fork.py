"""A connection that a child made by fork inherits."""

import asyncio
import os

import rabbitry


async def test_a_child_made_by_fork_finds_its_connection_unusable(embedded_url: str) -> None:
    async with rabbitry.connect(embedded_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        child = os.fork()
        if child == 0:
            code = 9
            try:
                channel.publish(b"x", routing_key=queue).send(None)
            except rabbitry.UsedAfterFork:
                code = 7
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        await channel.publish(b"from the parent", routing_key=queue)
