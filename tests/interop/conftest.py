"""One running installation for the whole folder, and the third-party programs, or the reason why they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.conftest import REQUIRE_ALL
from tests.interop import apache, npm, openid_client
from tests.interop.installation import Installation


def missing(reason: str) -> NoReturn:
    """Skip with the reason; in a run that requires everything, fail."""
    if REQUIRE_ALL:
        pytest.fail(f"required in this run: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="package")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The product: web server and worker."""
    with Installation(tmp_path_factory.mktemp("interop")) as made:
        yield made


@pytest.fixture(scope="package")
def node() -> Iterator[openid_client.Node]:
    """npm's `openid-client`, installed from the lock file."""
    if reason := npm.why_not():
        missing(reason)
    made = openid_client.Node()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="package")
def apache_ready() -> None:
    """Debian's Apache with mod_auth_openidc."""
    if reason := apache.why_not():
        missing(reason)
