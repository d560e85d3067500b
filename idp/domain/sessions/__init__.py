"""WHAT LIVES: login sessions, app sessions (the ledger of what must be cut), requests that wait for a person."""
