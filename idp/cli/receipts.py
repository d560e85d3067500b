"""`receipt`: show, export, reopen."""

from __future__ import annotations

import json
from pathlib import Path

import click

from idp.cli.common import actor, json_option, product, show
from idp.core import clock
from idp.core.db import reading, transaction
from idp.ledgers.audit.events import Tag
from idp.ledgers.audit.log import record
from idp.lifecycle.revocation import evidence, pack
from idp.lifecycle.revocation import receipt as receipts
from idp.lifecycle.revocation import record as cuts


@click.group()
def receipt() -> None:
    """Revocation receipts."""


@receipt.command("show")
@click.argument("number")
@json_option
def show_receipt(number: str, *, as_json: bool) -> None:
    """Show a receipt, line by line. Exit status 3 while it is not complete."""
    with product(), reading() as session:
        found = receipts.load(session, number, None)
        rows = [
            {
                "line": line.cut.position, "kind": line.cut.kind, "application": line.application_name, "count": line.cut.count,
                "state": line.state, "contract": line.contract, "grade": line.grade, "until": line.cut.residual_until,
                "attempts": line.cut.attempts, "error": line.cut.last_error,
            }
            for line in found.lines
        ]  # fmt: skip
        verdict = found.verdict
        head = {
            "receipt": found.revocation.number, "person": found.account.name, "scope": found.revocation.scope_kind, "t0": found.revocation.t0,
            "verdict": verdict.word, "closed": f"{verdict.closed}/{verdict.total}", "everything_cut": verdict.everything_cut,
            "weakest_grade": verdict.weakest,
        }  # fmt: skip
        if as_json:
            show({**head, "lines": rows}, as_json=True)
        else:
            show(head, as_json=False)
            click.echo()
            show(rows, as_json=False)
    if verdict.word != "done":
        raise click.exceptions.Exit(3)


@receipt.command("export")
@click.argument("number")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def export(number: str, file: Path, *, as_json: bool) -> None:
    """Write the evidence pack: a zip with page, facts, proofs and verifier, or, where FILE ends in .json, the signed receipt alone."""
    now = clock.now()
    with product() as app:
        services = app.extensions["sekisho"]
        key = None if file.suffix == ".json" else services.log_key()
        with reading() as session:
            found = receipts.load(session, number, None)
            if key is not None:
                with file.open("wb") as target:
                    evidence.write(target, session, found, key, services.settings, now=now)
            proofs = receipts.evidence_of(session, found.revocation.id)
        if key is None:
            signed = pack.sign(
                pack.build(found, proofs, issuer=services.settings.issuer, now=now), services.signer, now=now
            )
            file.write_text(json.dumps(signed, ensure_ascii=False, indent=1), encoding="utf-8")
        with transaction() as session:
            record(
                session, Tag.RECEIPT_EXPORTED, actor=actor(), now=now, company_id=found.revocation.company_id,
                subject_id=found.account.id, revocation_id=found.revocation.id,
            )  # fmt: skip
        show({"receipt": found.revocation.number, "file": str(file)}, as_json=as_json)


@receipt.command("reopen")
@click.argument("number")
@click.argument("line", type=int)
@click.option("--what", required=True, help="What came to light, for example: the session was still open on 3 March.")
@json_option
def reopen(number: str, line: int, what: str, *, as_json: bool) -> None:
    """Open a closed line again, because it says too much: LINE needs a person, and the receipt says that it was reopened (RV-07)."""
    with product(), transaction() as session:
        found = receipts.load(session, number, None)
        cuts.reopen(session, receipts.cut_of(session, found, line), why=what, actor=actor(), now=clock.now())
    show({"receipt": found.revocation.number, "line": line, "state": "needs_person"}, as_json=as_json)
