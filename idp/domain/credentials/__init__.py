"""Sealed credentials of tool accounts: versions, fields, rotation. Ciphertext and states; values open in the engine only."""
