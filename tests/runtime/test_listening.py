"""Taking a port, and naming who has it."""

import pytest

from rabbitry.runtime.listening import command


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/python3", "-m", "rabbitry", "broker", "--port", "5672"], "rabbitry broker"),
        (["/usr/bin/python3", "/usr/bin/rabbitry", "monitor", "publish", "-c", "a:secret"], "rabbitry monitor publish"),
        (["/usr/bin/python3.11", "-u", "serve.py", "secret"], "python3.11 serve.py"),
        (["/usr/lib/erlang/bin/beam.smp", "-W", "w"], "beam.smp"),
        ([], "unseen"),
    ],
)  # fmt: skip
def test_the_holder_of_a_port_is_named_by_its_command_without_secrets(words: list[str], shown: str) -> None:
    assert command(words, "unseen") == shown
