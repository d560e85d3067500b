"""Password-only tools: the way in for people, the ports of the gateway, the engine that logs in, the cutters."""
