"""Sekisho: one login, one console, one cut. Read `idp.app` first, then `docs/architecture.md`."""

__version__ = "0.1.0"
