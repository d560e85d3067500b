"""Two password-only tools of the demonstration: somebody else's systems, which know nothing of Sekisho.

`shift_note` makes its pages on the server, in CP932, with three login fields and a CSRF token; `order_desk` makes
everything in the browser. Both keep their data in memory: a restart is a fresh shop.
"""
