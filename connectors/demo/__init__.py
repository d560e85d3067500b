"""Reference relying parties and tools of the five scenarios: outside systems, so they import nothing of `idp`."""
