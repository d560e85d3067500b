"""One row of the log in the words of a SIEM. Fields: docs/operations/audit.md.

`plain` is the row; `ocsf` wraps it in the Open Cybersecurity Schema Framework's identity and access classes, as far as they
fit, with the row under `unmapped`; `syslog` is RFC 5424 with the plain row as message. Ids and codes, no names: who may know
a name looks it up in Sekisho.
"""

from __future__ import annotations

import json
from typing import Any

from idp import __version__
from idp.ledgers.audit import leaf
from idp.ledgers.audit.models import AuditEvent

OCSF_VERSION = "1.3.0"
#: source:subject:action → (class_uid, class_name, activity_id, activity_name); what is not here is an Entity Management "Other"
OCSF: dict[str, tuple[int, str, int, str]] = {
    "authn:login:succeeded": (3002, "Authentication", 1, "Logon"),
    "authn:login:refused": (3002, "Authentication", 1, "Logon"),
    "authn:second_factor:refused": (3002, "Authentication", 1, "Logon"),
    "authn:step_up:succeeded": (3002, "Authentication", 1, "Logon"),
    "oidc:logout:requested": (3002, "Authentication", 2, "Logoff"),
    "session:login_session:ended": (3002, "Authentication", 2, "Logoff"),
    "oidc:code:redeemed": (3002, "Authentication", 4, "Service Ticket Request"),
    "oidc:token:refreshed": (3002, "Authentication", 5, "Service Ticket Renew"),
    "oidc:code:issued": (3003, "Authorize Session", 1, "Assign Privileges"),
    "directory:account:added": (3001, "Account Change", 1, "Create"),
    "directory:account:reinstated": (3001, "Account Change", 2, "Enable"),
    "authn:password:changed": (3001, "Account Change", 3, "Password Change"),
    "authn:activation:used": (3001, "Account Change", 3, "Password Change"),
    "authn:activation:issued": (3001, "Account Change", 4, "Password Reset"),
    "revocation:revocation:executed": (3001, "Account Change", 5, "Disable"),
    "authn:totp:added": (3001, "Account Change", 10, "MFA Factor Enable"),
    "authn:totp:removed": (3001, "Account Change", 11, "MFA Factor Disable"),
    "directory:assignment:added": (3005, "User Access Management", 1, "Assign Privileges"),
    "application:entitlement:granted": (3005, "User Access Management", 1, "Assign Privileges"),
    "application:entitlement:ended": (3005, "User Access Management", 2, "Revoke Privileges"),
    "application:application:added": (3004, "Entity Management", 1, "Create"),
    "application:application:removed": (3004, "Entity Management", 4, "Delete"),
    "application:client_secret:rotated": (3004, "Entity Management", 3, "Update"),
    "directory:company:added": (3004, "Entity Management", 1, "Create"),
    "directory:region:added": (3004, "Entity Management", 1, "Create"),
    "directory:store:added": (3004, "Entity Management", 1, "Create"),
}
OTHER = (3004, "Entity Management", 99, "Other")


def plain(row: AuditEvent, *, host: str) -> dict[str, Any]:
    """The row as one JSON object. `leaf_index` counts without a gap: a SIEM that misses a number misses a row."""
    return {
        "schema": "sekisho-event-1", "host": host, "leaf_index": row.leaf_index, "id": str(row.id), "at": leaf.instant(row.created_at),
        "tag": row.tag, "company": str(row.company_id) if row.company_id else None, **leaf.body(row),
        "address": (row.personal or {}).get("address"),
    }  # fmt: skip


def ocsf(row: AuditEvent, *, host: str) -> dict[str, Any]:
    """The row as an OCSF event. Times are milliseconds since 1970."""
    class_uid, class_name, activity_id, activity_name = OCSF.get(row.tag, OTHER)
    refused = row.result == "refused"
    data: dict[str, Any] = {
        "metadata": {
            "version": OCSF_VERSION, "uid": str(row.id), "sequence": row.leaf_index, "event_code": row.tag,
            "product": {"name": "Sekisho", "vendor_name": "Sekisho", "version": row.software or __version__},
        },
        "category_uid": 3, "category_name": "Identity & Access Management", "class_uid": class_uid, "class_name": class_name,
        "activity_id": activity_id, "activity_name": activity_name, "type_uid": class_uid * 100 + activity_id,
        "time": int(row.created_at.timestamp() * 1000), "severity_id": 3 if refused else 1,
        "status_id": 2 if refused else 1, "status": "Failure" if refused else "Success", "message": row.tag,
        "actor": {"user": _user(row.actor_id)} if row.actor_id else {"app_name": row.actor_kind or "unknown"},
        "unmapped": plain(row, host=host),
    }  # fmt: skip
    if row.subject_id:
        data["user"] = _user(row.subject_id)
    if row.application_id:
        data["service"] = {"uid": str(row.application_id)}
    if address := (row.personal or {}).get("address"):
        data["src_endpoint"] = {"ip": address}
    return data


def _user(account_id: Any) -> dict[str, str]:
    return {"uid": str(account_id)}


def syslog(row: AuditEvent, *, host: str) -> bytes:
    """RFC 5424: facility 13 (log audit), severity 6, or 4 for a refusal; MSGID is the tag; the message is the plain row."""
    priority = 13 * 8 + (4 if row.result == "refused" else 6)
    message = json.dumps(plain(row, host=host), ensure_ascii=False, separators=(",", ":"))
    head = f"<{priority}>1 {leaf.instant(row.created_at)} {host.split(':', maxsplit=1)[0][:255]} sekisho - {row.tag[:32]} - "
    return head.encode("ascii", "replace") + b"\xef\xbb\xbf" + message.encode("utf-8", "replace")
