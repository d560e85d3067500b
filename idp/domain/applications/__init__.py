"""WHAT: applications, the relying parties behind them, and entitlements. `decide()` is the one gate."""
