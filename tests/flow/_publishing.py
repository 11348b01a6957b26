"""An app whose handlers publish by themselves, in each way, where they are not told a broker."""

from concurrent.futures import ThreadPoolExecutor

import rabbitry

app = rabbitry.App("publishing")
other = rabbitry.App("other")
app.output("end", queue="ends")


@other.stage("taken")
async def take(text: str) -> None: ...


@app.stage("async")
async def publish(text: str) -> None:
    await app.publish(text, key="end")


@app.stage("thread")
def publish_in_a_thread(text: str) -> None:
    app.publish_blocking(text, key="end")


@app.stage("own-thread")
def publish_in_a_thread_of_its_own(text: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(app.publish_blocking, text, key="end").result()


@app.stage("process", processes=True, concurrency=1)
def publish_in_a_process(text: str) -> None:
    app.publish_blocking(text, key="end")


@app.stage("publisher")
async def keep_a_publisher(text: str) -> None:
    async with app.publisher() as publisher:
        await publisher.publish(text, key="end")


@app.stage("blocking-publisher")
def keep_a_blocking_publisher(text: str) -> None:
    with app.publisher_blocking() as publisher:
        publisher.publish(text, key="end")


@app.stage("connect")
async def connect(text: str) -> None:
    async with rabbitry.connect() as connection, await connection.channel() as channel:
        await channel.publish(text.encode(), exchange=app.exchange, routing_key="end")


@app.stage("connect-blocking")
def connect_in_a_thread(text: str) -> None:
    with rabbitry.connect_blocking() as connection, connection.channel() as channel:
        channel.publish(text.encode(), exchange=app.exchange, routing_key="end")


@app.stage("other")
async def publish_to_another_app(text: str) -> None:
    await other.publish(text, key="taken")
