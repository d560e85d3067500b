"""Core: settings, transactions and claims, clock, ids, errors, keys, the one outbound HTTP client. Knows nothing of the domain."""
