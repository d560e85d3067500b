"""What Sekisho connects to. This import root knows nothing of `idp` or `vault` (house.md, section 3)."""
