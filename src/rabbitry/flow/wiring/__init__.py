"""An app's exchanges and queues on the broker, retry queues and dead letters included.

Public modules: `topology` (derived from an app, declared, checked), `declarer` (declares what other programs may have
declared with other flags), `retries` (retry queues, and the queues of suspects), `delays` (the queues of delayed
messages), `dead_letters` (listed, replayed, dropped), `pausing` (stages that take nothing for a while), `cancelling`
(of jobs), `schedules` (the state of stages that are called by the clock), `rates` (the tokens of stages with a rate),
`slots` (of stages with a limit of calls at once), `keys` (limits for each key), `tokens` (which queues hold
tokens or a state, and no messages), `replacing`, `replacer` and `moving` (what can't be changed in place: the
plan, its steps, and the messages of a queue).
"""
