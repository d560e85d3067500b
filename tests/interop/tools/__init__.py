"""Web applications that nobody here wrote, behind engine and gateway."""
