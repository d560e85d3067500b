"""The container's health check: exit 0 if this node answers /healthz with 200, else 1.

Asks by the issuer's host name, because the product answers to no other (WB-04).
"""

import http.client
import os
import sys
from urllib.parse import urlsplit


def healthy() -> bool:
    issuer = urlsplit(os.environ.get("SEKISHO_ISSUER", "http://localhost:8000"))
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("SEKISHO_PORT", "8000")), timeout=3)
    try:
        connection.request("GET", "/healthz", headers={"Host": issuer.netloc})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    sys.exit(not healthy())
