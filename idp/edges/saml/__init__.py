"""SAML 2.0 identity provider: single sign-on, single logout, metadata. The only importer of saml2 and signxml in `idp`.

`guard` is the door: every message that comes in is parsed, verified and judged there, and nothing else reads one. `sign`
signs and encrypts in process, `build` writes what goes out, `sso` and `slo` are the endpoints, `cutter` ends sessions at
service providers by SOAP, `metadata` reads theirs and publishes ours (docs/protocols/saml.md).
"""

from flask import Blueprint

from idp.edges import browser

bp = Blueprint("saml", __name__)


@bp.before_request
def _keys() -> None:
    """Read our keys before a transaction is open: opening a new one commits its audit row first."""
    browser.services().saml_keys.refresh(now=browser.now())
