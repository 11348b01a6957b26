"""One message for several kinds of consumer: each kind has its own queue, which fills while its consumers are away.

rabbitry worker news:app --stage archive      # each in a terminal of its own, in any order
rabbitry worker news:app --stage notify
echo '"it rains"' | rabbitry publish news:app news
"""

import rabbitry

app = rabbitry.App("news")


@app.stage("news")
async def archive(text: str) -> None:
    print("archived:", text, flush=True)


@app.stage("news")
async def notify(text: str) -> None:
    print("told everybody:", text, flush=True)
