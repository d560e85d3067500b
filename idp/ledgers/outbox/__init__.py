"""The outbox: what must leave the process, one row per destination, written in the transaction that decided it (RE-01)."""
