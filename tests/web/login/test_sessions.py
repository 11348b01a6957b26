"""Sessions: how long they live, and how many there are."""

from rabbitry.web.login.sessions import IDLE, LONGEST, MOST, MOST_OF_USER, Sessions


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_when_it_is_unused_and_in_any_case_after_the_longest_time() -> None:
    clock = _Clock()
    sessions = Sessions(clock)
    unused, used = sessions.begin("a"), sessions.begin("a")
    while clock.now < LONGEST - IDLE / 2:
        clock.now += IDLE / 2
        assert sessions.find(used.key) is used
    assert sessions.find(unused.key) is None
    assert unused.ended.is_set()
    clock.now = LONGEST
    sessions.touch(used)
    assert used.ended.is_set()
    assert len(sessions) == 0


def test_the_number_of_sessions_is_bounded_for_a_name_and_for_all() -> None:
    sessions = Sessions()
    mine = [sessions.begin("a") for _ in range(MOST_OF_USER)]
    sessions.find(mine[0].key)
    sessions.begin("a")
    assert (mine[0].ended.is_set(), mine[1].ended.is_set()) == (False, True)
    for number in range(MOST + 10):
        sessions.begin(str(number))
    assert len(sessions) == MOST
    assert mine[0].ended.is_set()


def test_keys_and_tokens_can_not_be_guessed_from_each_other() -> None:
    sessions = Sessions()
    one, other = sessions.begin("a"), sessions.begin("a")
    tokens = {sessions.token(), sessions.token(one.key), sessions.token(other.key)}
    assert len(tokens | {one.key, other.key}) == 5
    assert sessions.is_token(sessions.token(one.key), one.key)
    for wrong in ("", "\ud800", sessions.token(other.key), one.key, sessions.token()):
        assert not sessions.is_token(wrong, one.key)
    assert Sessions().token() != sessions.token()


def test_the_sessions_of_a_user_end_together() -> None:
    sessions = Sessions()
    mine, others = sessions.begin("a"), sessions.begin("b")
    sessions.end_of(lambda session: session.name == "a")
    assert (sessions.find(mine.key), sessions.find(others.key)) == (None, others)
