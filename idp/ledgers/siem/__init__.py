"""The log as a stream for a SIEM: shapes of an event, the cursor that loses nothing, the alarm when it falls behind (AU-13)."""
