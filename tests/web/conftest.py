import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "crash")]

import pytest  # noqa: E402
from webkit import site  # noqa: E402


@pytest.fixture(scope="module")
def web(dns):
    with site(dns, "web_session_time = 1h\n") as w:
        yield w
