"""The login engine: opens a tool account with a use-ticket, logs in, proves it, and hands back a jar (vault-and-gateway.md §7)."""
