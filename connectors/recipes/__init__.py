"""Recipes: how one password-only tool is logged in to, checked, guarded and rotated. Pure: no network, no clock."""
