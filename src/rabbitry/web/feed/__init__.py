"""The live feed: one WebSocket, `/feed`, over which a page subscribes to topics.

Messages are JSON objects, one in each text frame. The page sends:

- `{"open": 1, "topic": "queues", "params": {…}}`: subscribe under a number of the page's own, or change the
  parameters of a subscription. Both start it anew: the next part is a whole one.
- `{"close": 1}`: end a subscription.

The server sends `{"now": SECONDS, "parts": […]}`; `now` is its Unix time. There is a message whenever something
changed, at most five a second, and at least one in 5 s, with no parts if nothing changed. A part has the
subscription's number `id`, and

- `seq`: 1 for a whole part, and 1 more for each later one. A page that misses a number opens the subscription anew.
- `at`: the Unix time at which the source had this data, where it changed. `now - at` is the data's age.
- `error`: the topic or its parameters make no sense; nothing more comes for this subscription.

The parts of a **value**, an object:

- whole: `value`;
- later: `set`, the members that changed, and `unset`, the names of those that are gone.

The parts of a **table**, of which a page sees a window. Its parameters are `sort`, a list of columns, each with `-`
before it for the descending order, `filter` (see `tables`), `first` and `count`, the rows to see:

- whole: `columns`, the names of the cells; `keys`, how many of the first columns identify a row; `total`, the rows of
  the table; `matching`, those that the filter leaves; `first`; `rows`;
- later: `total`, `matching`; `length`, how many rows the window has now; `rows`, `[index, row]` for each row of the
  window that differs, counted from the window's first.

The server keeps no queue for a page. Each part is the difference between what the page was sent last and what is now.
A page that reads slowly therefore gets fewer parts and always the newest; its memory at the server is one window for
each subscription. Pages with equal sort and filter share one sorted list.
"""
