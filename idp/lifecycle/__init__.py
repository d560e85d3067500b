"""What happens to access over time: revocation (the only way it ends), and what the clock does."""
