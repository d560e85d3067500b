"""The WSGI application that a server process loads. Reads the environment; raises RefusedToStart."""

from idp.app import create_app
from idp.core import logs
from idp.core.settings import Settings

logs.configure()
app = create_app(Settings.from_env())
