"""A promotion and coupon console: the reference SAML service provider of the scenario `store-portal`.

It stands for somebody else's system and imports nothing of `idp`. Sign-on by Redirect and POST with both signatures verified,
single logout by SOAP, sessions in its own database that end when the identity provider says so.
"""
