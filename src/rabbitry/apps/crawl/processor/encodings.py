"""The encoding of a page, determined as in the WHATWG standards (HTML, "determining the character encoding").

Order: byte order mark, charset of the Content-Type header, `meta` or XML declaration in the first 1,024 bytes,
statistics. Labels are those of the Encoding standard, in which "iso-8859-1" means windows-1252.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, NamedTuple

import webencodings
from resiliparse.parse.encoding import detect_encoding

UTF_8: Final = "utf-8"
_PRESCAN: Final = 1024
_SAMPLE: Final = 64 * 1024
"""Bytes used for the statistics."""
_MARKS: Final = ((b"\xef\xbb\xbf", UTF_8), (b"\xfe\xff", "utf-16be"), (b"\xff\xfe", "utf-16le"))
_XML_MARKS: Final = ((b"<\0?\0x\0", "utf-16le"), (b"\0<\0?\0x", "utf-16be"))
_XML_DECLARATION: Final = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([^"'>]*)["']""")
_CHARSET: Final = re.compile(r"""charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;"']+))""", re.IGNORECASE)
# The prescan skips comments, meta tags, other tags, and text that begins like one. It reads 1,024 bytes.
_PIECE: Final = re.compile(
    rb"""<!(?=--)(?:.*?-->|.*)|<meta(?=[\s/])((?:[^>"']|"[^"]*"|'[^']*')*)|</?[a-z](?:[^>"']|"[^"]*"|'[^']*')*>|<[!/?][^>]*>""",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(rb"""([^\s/=>]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']+)))?""")
_JAPANESE: Final = re.compile(rb"\x1b\$[@B][!-~]{2}")
"""The escape to JIS X 0208, and a character."""
_UTF_16: Final = frozenset({"utf-16le", "utf-16be"})
_DECODERS: Final = {"gbk": "gb18030"}
"""Decoders that the standard shares between encodings, by Python's names."""
_LABELS: Final = {"cp932": "shift_jis", "cp949": "euc-kr", "shift_jis": "shift_jis"}
"""Labels of the standard that have another name in Python."""


class Decoded(NamedTuple):
    """A text, and the standard's name of its encoding."""

    text: str
    encoding: str


def decode(body: bytes, content_type: str | None = None) -> Decoded:
    """Decode a page. Bytes that are invalid in the encoding become U+FFFD.

    content_type: the server's header; None if there is none.
    """
    name, start = encoding_of(body, content_type)
    return Decoded(_text(body[start:], name), name)


def encoding_of(body: bytes, content_type: str | None = None) -> tuple[str, int]:
    """Return the encoding of a page or of its beginning, and the length of its byte order mark."""
    for mark, name in _MARKS:
        if body.startswith(mark):
            return name, len(mark)
    return charset_of(content_type) or declared_encoding(body) or guessed_encoding(body), 0


def decoder_of(encoding: str) -> codecs.IncrementalDecoder:
    """Return an incremental decoder, which replaces invalid bytes by U+FFFD."""
    return codecs.getincrementaldecoder(_codec(encoding).name)("replace")


def charset_of(content_type: str | None) -> str | None:
    """Return the encoding named in a Content-Type; None if there is none or it is unknown."""
    found = _CHARSET.search(content_type or "")
    return _known(found[1] or found[2] or found[3] or "") if found else None


def declared_encoding(body: bytes) -> str | None:
    """Return the encoding declared in a page's first 1,024 bytes (HTML, "prescan a byte stream")."""
    head = body[:_PRESCAN]
    for mark, name in _XML_MARKS:
        if head.startswith(mark):
            return name
    for piece in _PIECE.finditer(head):
        if piece[1] is not None and (found := _encoding_of_meta(piece[1])):
            # It was read byte by byte, so it can't be UTF-16; the standard replaces x-user-defined likewise.
            return UTF_8 if found in _UTF_16 else "windows-1252" if found == "x-user-defined" else found
    declaration = _XML_DECLARATION.match(head)
    named = _known(declaration[1].decode("latin-1")) if declaration else None
    return UTF_8 if named in _UTF_16 else named


def guessed_encoding(body: bytes) -> str:
    """Return an encoding by statistics: UTF-8 if the bytes are valid UTF-8, else the best match.

    Two encodings are valid UTF-8 too: UTF-16 is recognized by its zero bytes, ISO-2022-JP by its escapes.
    """
    head = body[:_PRESCAN]
    if 0 in head and (wide := _wide(head)):
        return wide
    if _JAPANESE.search(body[:_SAMPLE]):
        return "iso-2022-jp"
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(body)  # it accepts a cut last character
    except UnicodeDecodeError as error:
        start = body.rfind(b">", 0, error.start) + 1  # the text with the first byte of another encoding
        python_name = detect_encoding(body[start : start + _SAMPLE], html5_compatible=False) or ""
        found = _known(_LABELS.get(python_name, python_name.replace("_", "-")))
        return "windows-1252" if found in (None, UTF_8) else found
    return UTF_8


def _wide(head: bytes) -> str:
    """Return the UTF-16 variant in which a beginning has ASCII, as markup has; empty if in none."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) * 20 < len(head):
        return ""
    return "utf-16le" if odd > 8 * even else "utf-16be" if even > 8 * odd else ""


def _encoding_of_meta(attributes: bytes) -> str | None:
    """Return the encoding that a `meta` tag declares: `charset`, or `content` with `http-equiv="content-type"`."""
    values: dict[bytes, str] = {}
    for found in _ATTRIBUTE.finditer(attributes):
        value = found[2] or found[3] or found[4] or b""
        values.setdefault(found[1].lower(), value.decode("latin-1"))
    if named := _known(values.get(b"charset", "")):
        return named
    if values.get(b"http-equiv", "").lower() == "content-type":
        return charset_of(values.get(b"content"))
    return None


def _known(label: str) -> str | None:
    """Return the standard's name for a label."""
    found = webencodings.lookup(label)
    return None if found is None else str(found.name)


def _text(body: bytes, name: str) -> str:
    if name == "replacement":  # for encodings that can hide markup (Encoding standard, "replacement")
        return "\ufffd" if body else ""
    return _codec(name).decode(body, "replace")[0]


def _codec(name: str) -> codecs.CodecInfo:
    codec: codecs.CodecInfo = webencodings.lookup(name).codec_info
    shared = _DECODERS.get(codec.name)
    return codecs.lookup(shared) if shared else codec
