"""HOW a person proves who they are: password, TOTP, recovery codes, activation; and the brakes on guessing."""
