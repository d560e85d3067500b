"""Password-only tools: the way in at the portal, and what the gateway and the engine need of the database.

`routes` and `open` serve the browser; `ports` and `bell` are the gateway's side of `connectors.ports`; `sweeping` confirms a cut.
"""

from flask import Blueprint

bp = Blueprint("tools", __name__)
