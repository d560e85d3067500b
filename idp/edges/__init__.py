"""HTTP exists only here. Edges never import one another; they meet at URLs and in the database."""
