"""An app with handlers in a process, in a thread and in a task."""

import rabbitry

app = rabbitry.App("portable")


@app.stage("a", then="b", processes=True)
def first(text: str) -> str:
    return text + "1"


@app.stage("b", then="c")
def second(text: str) -> str:
    return text + "2"


@app.stage("c", then="d")
async def third(text: str) -> str:
    return text + "3"


app.output("d", queue="portable.d")
