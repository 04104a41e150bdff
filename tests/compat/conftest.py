"""Debian's Postfix for the files here; each has a name server of its own."""
import pytest

import pair


@pytest.fixture(scope="module")
def postfix(name_server):
    p = pair.Postfix(name_server)
    yield p
    p.stop()
