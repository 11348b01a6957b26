"""Three stages in a row, for the benchmark of a million messages."""

import rabbitry
from benchmarks.flow_peers import Item

app = rabbitry.App("pipeline")


@app.stage("one", then="two")
async def first(item: Item) -> Item:
    """Increment the number."""
    return Item(item.n + 1, item.text)


@app.stage("two", then="three")
async def second(item: Item) -> Item:
    """Increment it again."""
    return Item(item.n + 1, item.text)


@app.stage("three")
async def third(item: Item) -> None:
    """Take the result."""
