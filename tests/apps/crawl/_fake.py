"""A keeper that answers at once with values that a test sets."""

from dataclasses import dataclass, field

from rabbitry.apps.crawl.answers import (
    Answered,
    AskHosts,
    AskSearch,
    AskStatus,
    AskWhy,
    Decision,
    Found,
    Hit,
    HostAnswer,
    Hosts,
    Question,
    Refused,
    Status,
    Why,
)
from rabbitry.apps.crawl.messages import Add, Answer, Command, Pause, Resume, Taken
from rabbitry.exceptions import RequestTimeout

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e|\u0007"
URL = "http://site-1.example.org/page?q=<b>&r=\u202e"


@dataclass
class FakeKeeper:
    """A keeper that answers questions and records the commands that it gets."""

    is_paused: bool = False
    is_silent: bool = False
    hosts: int = 120
    asked: list[Question] = field(default_factory=list)
    told: list[Command] = field(default_factory=list)

    async def ask(self, question: Question) -> Answered:
        """Answer as a keeper would."""
        self.asked.append(question)
        if self.is_silent:
            raise RequestTimeout("no keeper answered within 5 s")
        match question:
            case AskStatus():
                outcomes = {"document": 1200, "redirect": 40, "robots": 12, "too-slow": 3}
                return Status(
                    1.0, self.is_paused, {"queued": 17, "sent": 50, "done": 1255}, outcomes, pages=1200, rate=12.34,
                    documents=1198, hosts=self.hosts, hosts_out=2, hosts_waiting=9, wire=25_000_000, size=70_000_000,
                    carried=12_000_000,
                )  # fmt: skip
            case AskHosts(limit, offset):
                last = [Decision(1.0, "document"), Decision(0.5, "too-slow", detail=EVIL)]
                found = [
                    HostAnswer(f"http://site-{number}.example.org", 10, 1, number, 1.0, robots="robots", last=last)
                    for number in range(offset, min(offset + limit, self.hosts))
                ]
                return Hosts(found, self.hosts)
            case AskSearch("refuse"):
                return Refused("what is searched for makes no sense", is_usage=True)
            case AskSearch("broken"):
                return Refused("the database is locked")
            case AskSearch(words):
                snippet = f"𝄞 before {words} and {EVIL}"
                mark = (9, 9 + len(words))
                hits = [
                    Hit(URL, f"A title {EVIL}", snippet, [mark], 1.0, 1_700_000_000.0, "en"),
                    Hit("javascript:alert(3)", "No link", "", [], 0.5, 1_700_000_000.0),
                ]
                return Found(hits, 2)
            case AskWhy(url):
                decisions = [Decision(1_700_000_000.0, "queued", "keeper c01e", EVIL), Decision(1.7e9, "document")]
                return Why(url, "done", decisions, found_on="http://site-2.example.org/", depth=1)
        raise AssertionError(question)

    async def tell(self, command: Command) -> Answer:
        """Record a command."""
        self.told.append(command)
        match command:
            case Pause() | Resume():
                self.is_paused = isinstance(command, Pause)
                return Answer()
            case Add(urls) if "http://refused/" in urls:
                return Answer(error="a crawl of public addresses needs --contact")
            case Add(urls):
                return Answer(["1 address queued"], addresses=[Taken(url, "queued", EVIL) for url in urls])
        raise AssertionError(command)

    async def close(self) -> None:
        """Do nothing."""
