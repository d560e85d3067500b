"""The gateway: a reverse proxy that keeps the tool's login and asks the database about every request (vault-and-gateway.md §8)."""
