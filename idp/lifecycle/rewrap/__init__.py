"""Rewrapping: records move from an old company key to a new one, and company keys from an old root key to a new one."""
