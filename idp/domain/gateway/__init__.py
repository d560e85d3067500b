"""Being inside a tool: our login there, one person's passage through the gateway, the tickets that lead to both."""
