"""HTTP clients of a process share the authorities that its environment named at first."""

from pathlib import Path

import pytest
import trustme

from tests.support.authorities import _context


def test_clients_share_the_authorities_that_the_machine_names() -> None:
    assert _context() is _context()


def test_a_test_s_own_authority_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    shared, independent = _context(), _context(trust_env=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    assert _context() is not shared
    assert len(_context().get_ca_certs()) == 1
    assert _context(trust_env=False) is independent
