"""Revocation. `cascade.revoke` is the only entrance; everything that ends somebody's access calls it (RV-01)."""
