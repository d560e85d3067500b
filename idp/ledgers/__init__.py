"""Ledgers: what happened (audit) and what must still leave the process (outbox). Written with the change, never after it."""
