"""WHO: companies, regions, stores, accounts, assignments, and what an actor may see of them."""
