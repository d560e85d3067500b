"""The WSGI application that a server process loads. Reads the environment; raises RefusedToStart."""

from idp.app import create_app
from idp.core import logs, memory
from idp.core.settings import Settings

memory.bound()
logs.configure()
app = create_app(Settings.from_env())
