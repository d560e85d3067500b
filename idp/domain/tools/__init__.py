"""Tools: applications that know passwords only. Recipes, accounts inside them, what certification and measurement say."""
