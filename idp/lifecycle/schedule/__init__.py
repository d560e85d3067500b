"""What the clock does: runs the cascade for reached end dates. Access itself stops at `ends_at` without it (D7)."""
