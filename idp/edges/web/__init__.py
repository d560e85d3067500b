"""Pages for people: one module per page family, one blueprint each."""
