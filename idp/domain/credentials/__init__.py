"""Sealed things of our own: company keys, signing keys, TOTP seeds. Opening one writes its audit row first."""
