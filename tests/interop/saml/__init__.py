"""SAML service providers that others wrote, set up as docs/integrate/saml.md says, and the browser that walks between them."""
