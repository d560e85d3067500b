"""The domain: functions `(session, …, *, actor, now)` that return values. No commit, no clock, no socket, no request."""
