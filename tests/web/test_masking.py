"""Bodies of messages as pages get them."""

import base64

from rabbitry.telemetry import MASK, Masking
from rabbitry.web.masking import shown_body


def test_a_body_is_masked_or_hidden_and_says_so() -> None:
    shown = shown_body(b"token=x", Masking())
    assert base64.b64decode(shown.payload).decode() == f"token={MASK}"
    assert shown[1:] == (7, True, False)
    assert shown_body(b"plain", Masking())[1:] == (5, False, False)
    assert shown_body(b"", Masking()) == ("", 0, False, False)
    assert shown_body(b"\xff", Masking()) == ("", 1, False, True)
    assert shown_body(b"\xff", Masking([])) == ("/w==", 1, False, False)
