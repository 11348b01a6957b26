import signal


def test_a_process_that_a_test_starts_gets_its_signals() -> None:
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()  # each process inherits what is blocked
