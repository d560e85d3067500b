"""Relying parties that others wrote, unmodified, against the real processes of the product."""
