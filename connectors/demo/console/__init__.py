"""ポイント管理コンソール: the reference relying party, a point platform's admin console for store staff.

A real OpenID Connect client with its own database, members and session store. It is to Sekisho what a customer's
console would be, so it shares no code with it and believes nothing that a token does not prove. Read `app.py` first;
`python -m connectors.demo.console` runs it. `misbehave.py` can turn it into a hostile peer for tests, off by default.
"""

from connectors.demo.console.app import create_console
from connectors.demo.console.config import Config, ConfigError

__all__ = ["Config", "ConfigError", "create_console"]
