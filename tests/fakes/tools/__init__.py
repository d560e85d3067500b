"""Password-only tools on loopback: well-behaved and otherwise (vault-and-gateway.md §11). They know nothing of us."""
