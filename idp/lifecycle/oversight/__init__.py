"""What an auditor asks: who did what, who could use what, how fast a cut was, who sleeps; and what has to be forgotten."""
