"""OpenID Provider: authorize, token, userinfo, logout, discovery. The only importer of authlib in `idp`.

`authorize` decides what a person must still do and issues codes; `token` redeems and refreshes; `documents` are the static
answers; `backchannel` tells relying parties that a session is over. Authlib supplies validation and grammar; everything
that is claimed, decided or stored is ours (docs/protocols/oidc.md).
"""

from flask import Blueprint

bp = Blueprint("oidc", __name__)
