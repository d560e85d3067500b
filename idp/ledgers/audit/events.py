"""Audit tags. Grammar: `source:subject:action`, past tense. A retired tag stays here as a comment."""

from __future__ import annotations

from enum import StrEnum


class Tag(StrEnum):
    """What happened. The text is stored and never changes."""

    INSTALLATION_READY = "cli:installation:initialised"
    COMPANY_ADDED = "directory:company:added"
    REGION_ADDED = "directory:region:added"
    STORE_ADDED = "directory:store:added"
    ACCOUNT_ADDED = "directory:account:added"
    ACCOUNT_REINSTATED = "directory:account:reinstated"
    ASSIGNMENT_ADDED = "directory:assignment:added"
    FOREIGN_OBJECT = "directory:foreign_object:refused"

    ACTIVATION_ISSUED = "authn:activation:issued"
    ACTIVATION_USED = "authn:activation:used"
    ACTIVATION_REFUSED = "authn:activation:refused"
    LOGIN_SUCCEEDED = "authn:login:succeeded"
    LOGIN_REFUSED = "authn:login:refused"
    SECOND_FACTOR_REFUSED = "authn:second_factor:refused"
    STEP_UP = "authn:step_up:succeeded"
    PASSWORD_CHANGED = "authn:password:changed"
    TOTP_ADDED = "authn:totp:added"
    TOTP_REMOVED = "authn:totp:removed"
    RECOVERY_CODES_MADE = "authn:recovery_codes:made"
    RECOVERY_CODE_USED = "authn:recovery_code:used"
    SECRET_OPENED = "credential:secret:opened"
    SECRET_OPEN_ENDED = "credential:open:ended"
    CREDENTIAL_DEPOSITED = "credential:credential:deposited"
    CREDENTIAL_LOCKED = "credential:credential:locked"
    CREDENTIAL_UNLOCKED = "credential:credential:unlocked"

    LOGIN_SESSION_ENDED = "session:login_session:ended"
    APP_SESSION_OPENED = "session:app_session:opened"

    CODE_ISSUED = "oidc:code:issued"
    CODE_REDEEMED = "oidc:code:redeemed"
    CODE_REPLAYED = "oidc:code:replayed"
    TOKEN_REFRESHED = "oidc:token:refreshed"
    REFRESH_REUSE = "oidc:refresh:reused"
    REQUEST_REFUSED = "oidc:request:refused"
    LOGOUT_REQUESTED = "oidc:logout:requested"

    ASSERTION_ISSUED = "saml:assertion:issued"
    SAML_REFUSED = "saml:message:refused"
    METADATA_HELD = "saml:metadata:held"
    METADATA_APPROVED = "saml:metadata:approved"
    METADATA_FAILED = "saml:metadata:failed"
    ACCOUNT_MAPPED = "saml:account:mapped"
    PROVIDER_CHANGED = "saml:service_provider:changed"

    TOOL_OPENED = "gateway:session:opened"
    TOOL_ENTERED = "gateway:session:entered"
    TOOL_LEFT = "gateway:session:left"
    TOOL_REFUSED = "gateway:session:refused"
    TICKET_REUSED = "gateway:ticket:reused"
    GATEWAY_ALARM = "gateway:alarm:raised"

    APPLICATION_ADDED = "application:application:added"
    APPLICATION_REMOVED = "application:application:removed"
    ENTITLEMENT_GRANTED = "application:entitlement:granted"
    ENTITLEMENT_ENDED = "application:entitlement:ended"
    CLIENT_SECRET_ROTATED = "application:client_secret:rotated"

    RECIPE_PROPOSED = "tool:recipe:proposed"
    RECIPE_APPROVED = "tool:recipe:approved"
    TOOL_CHANGED = "tool:tool:changed"
    TERMS_ATTESTED = "tool:terms:attested"
    TOOL_ACCOUNT_ADDED = "tool:account:added"
    TOOL_ACCOUNT_ENDED = "tool:account:ended"
    TOOL_DEGRADED = "tool:account:degraded"
    TOOL_RESOLVED = "tool:account:resolved"
    CERTIFICATION_WITHDRAWN = "tool:certification:withdrawn"

    REVOKED = "revocation:revocation:executed"
    REVOCATION_BOOKED = "revocation:revocation:booked"
    CUT_ATTEMPTED = "revocation:cut:attempted"
    CUT_CLOSED = "revocation:cut:closed"
    CUT_NEEDS_PERSON = "revocation:cut:needs_person"
    CUT_ATTESTED = "revocation:cut:attested"
    CUT_IMPOSSIBLE = "revocation:cut:impossible"
    RECEIPT_EXPORTED = "revocation:receipt:exported"

    LOGOUT_DELIVERED = "logout:notice:delivered"
    LOGOUT_GIVEN_UP = "logout:notice:given_up"

    LOG_VIEWED = "audit:log:viewed"
    LOG_EXPORTED = "audit:log:exported"
    REPORT_VIEWED = "audit:report:viewed"
    REPORT_EXPORTED = "audit:report:exported"
    STREAM_BEHIND = "audit:siem_stream:fell_behind"
    STREAM_CAUGHT_UP = "audit:siem_stream:caught_up"

    RECEIPT_SEALED = "revocation:receipt:sealed"
    RECEIPT_REOPENED = "revocation:receipt:reopened"

    ORIGIN_STARTED = "audit:origin:started"
    AUDIT_EXPORTED = "audit:period:exported"
    PERSONAL_ERASED = "audit:personal:erased"
    RETENTION_ENDED = "audit:retention:ended"

    SIGNING_KEY_MADE = "keys:signing_key:made"
    SIGNING_KEY_WITHDRAWN = "keys:signing_key:withdrawn"
