"""Requirement → guard → the test that goes red when the guard is taken out (SA-30; `tests/house/test_saml_guards.py` shows it).

A test is written `attack: name` (of the corpus), `file: function` below `tests/protocol/saml`, or a whole path. Tests on two
engines are run on SQLite: nothing here is decided by the engine.
"""

from __future__ import annotations

from functools import cache

from tests.refusals import Refusal, Rule, refusals

#: the places that say no (`tests/refusals.py` finds them)
GUARDS: dict[str, dict[str, str]] = {
    "SA-01": {
        "xml.parse:too_large": "second_lines: test_SA_01_a_document_of_300_kb_is_not_parsed",
        "xml.parse:not_utf8#1": "attack: UTF-16",
        "xml.parse:not_utf8#2": "attack: UTF-16 without a mark",
        "xml.parse:not_utf8#3": "attack: UTF-7",
        "xml.parse:doctype": "attack: unfinished DOCTYPE",
        "xml.parse:not_xml": "attack: not XML",
        "xml.judge_shape:doctype": "second_lines: test_SA_01_a_tree_with_a_dtd_or_an_entity_is_refused",
        "xml.judge_shape:processing_instruction#1": "attack: processing instruction before the root",
        "xml.judge_shape:processing_instruction#2": "attack: processing instruction",
        "xml.judge_shape:processing_instruction#3": "second_lines: test_SA_01_a_tree_with_a_dtd_or_an_entity_is_refused",
        "xml.judge_shape:too_deep#1": "attack: a hundred levels",
        "xml.judge_shape:too_deep#2": "attack: five thousand elements",
        "xml.judge_shape:too_many_attributes": "attack: two hundred attributes",
        "xml.judge_shape:duplicate_id": "attack: duplicate ID",
        "xml.validate:schema": "attack: signed and off the schema",
        "guard.receive:Refused#1": "attack: signed and off the schema",
        "guard._parsed:Refused": "attack: not XML",
        "guard.receive:unexpected_message": "attack: another namespace",
        "guard.from_soap:no_soap": "attack: no envelope",
        "guard.from_soap:not_one_message": "attack: two in one envelope",
        "guard.from_soap:soap_fault": "attack: a fault",
        "guard._base64:not_base64": "attack: not base64",
        "sso._envelope:repeated_parameter#1": "attack: sign-on with a query",
        "sso._envelope:repeated_parameter#2": "attack: sign-on with a third field",
        "sso._envelope:repeated_parameter#3": "attack: sign-on with two RelayStates",
        "sso._envelope:no_message": "attack: sign-on without a message",
        "slo._envelope:repeated_parameter#1": "attack: POST with a query",
        "slo._envelope:repeated_parameter#2": "attack: POST with both",
        "slo._envelope:repeated_parameter#3": "attack: POST with two messages",
        "slo._envelope:no_message": "attack: POST of nothing",
    },
    "SA-02": {
        "guard.only_the_root:signed_element_differs#1": "second_lines: test_SA_02_only_the_root_counts_as_signed[nothing]",
        "guard.only_the_root:signed_element_differs#2": "second_lines: test_SA_02_only_the_root_counts_as_signed[another element]",
        "guard.only_the_root:signed_element_differs#3": "second_lines: test_SA_02_only_the_root_counts_as_signed[the same of another ID]",
        "guard.only_the_root:signed_by_another": "second_lines: test_SA_02_the_signed_issuer_is_the_one_whose_keys_were_tried",
        "guard._issuer:no_issuer#1": "attack: no issuer",
        "guard._issuer:no_issuer#2": "attack: issuer split by a comment",
        "guard._issuer:no_issuer#3": "attack: issuer of another format",
    },
    "SA-03": {
        "guard.verify_enveloped:signature_elsewhere#1": "attack: a second signature",
        "guard.verify_enveloped:signature_elsewhere#2": "attack: signature in Extensions",
        "guard.judge_signature:comment_in_signature": "attack: smuggled digest",
        "guard.judge_signature:object_in_signature": "attack: xsw1",
        "guard.judge_signature:not_one_reference": "attack: two references",
        "guard.judge_signature:reference_elsewhere": "attack: empty reference",
        "guard.judge_signature:transform#1": "attack: XPath transform",
        "guard.judge_signature:transform#2": "attack: child of a transform",
        "guard.judge_signature:canonicalisation": "attack: another canonicalisation",
        "guard.judge_signature:smuggled_digest#1": "second_lines: test_SA_03_two_values_of_which_one_would_be_read[DigestValue]",
        "guard.judge_signature:smuggled_digest#2": "second_lines: test_SA_03_two_values_of_which_one_would_be_read[SignatureValue]",
    },
    "SA-04": {
        "guard.judge_signature:algorithm#1": "attack: RSA-SHA1",
        "guard.judge_signature:algorithm#2": "attack: SHA-1 digest",
        "guard._verified:algorithm": "attack: RSA-SHA1 in Redirect",
        "x509.read:Invalid#1": "metadata: test_SA_15_a_document_that_is_refused_says_why[no certificate]",
        "x509.read:Invalid#2": "metadata: test_SA_15_a_document_that_is_refused_says_why[RSA of 1024 bits]",
    },
    "SA-05": {
        "guard.verify_enveloped:bad_signature": "attack: another registered key",
        "guard.receive:unknown_service_provider": "attack: a stranger",
    },
    "SA-06": {
        "guard.from_redirect:too_large": "second_lines: test_SA_06_an_address_of_70_kb_is_not_read",
        "guard.from_redirect:repeated_parameter": "attack: message twice",
        "guard.from_redirect:no_message#1": "attack: a response to the sign-on",
        "guard.from_redirect:no_message#2": "attack: both messages",
        "guard.from_redirect:unknown_encoding": "attack: another encoding",
        "guard.from_redirect:half_a_signature": "attack: half a signature",
        "guard.from_redirect:parameters_out_of_order": "attack: parameters swapped",
        "guard._plain:not_utf8": "attack: not UTF-8",
        "guard._inflate:not_deflate#1": "attack: not deflated",
        "guard._inflate:inflates_too_far#1": "attack: large and dense",
        "guard._inflate:inflates_too_far#2": "attack: small and thin",
        "guard._inflate:not_deflate#2": "attack: cut off",
        "guard._inflate:not_deflate#3": "attack: trailing data",
        "guard._verified:xml_signature_in_redirect": "attack: XML signature in Redirect",
        "guard._verified:bad_signature": "attack: garbage signature",
    },
    "SA-07": {
        "guard._judge:wrong_version": "attack: SAML 1.1",
        "guard._judge:wrong_destination": "attack: wrong Destination",
        "guard._judge:not_now#1": "attack: no time zone",
        "guard._judge:not_now#2": "attack: 181 seconds old",
    },
    "SA-08": {
        "guard.receive:unsigned": "attack: unsigned of one that signs",
        "wishes.acs_of:unknown_acs": "attack: another's address",
        "wishes.read:UnsupportedBinding": "sso: test_SA_08_SA_09_requests_that_are_not",
        "wishes.read:RequestUnsupported": "sso: test_SA_08_what_is_not_done_is_said_and_not_left_out",
        "sso._begin:_Changed": "sso: test_SA_05_SA_08_what_a_process_remembers_of_a_service_provider_decides_nothing",
        "sso._proceed:_Changed": "sso: test_SA_05_SA_08_what_a_process_remembers_of_a_service_provider_decides_nothing",
        "sso._proceed:Denied#1": "sso: test_SA_08_what_ended_while_a_person_logs_in_gets_no_answer",
        "sso._proceed:Denied#2": "sso: test_SA_08_what_ended_while_a_person_logs_in_gets_no_answer",
    },
    "SA-09": {
        "sso._begin:replayed": "sso: test_SA_09_a_message_is_remembered_as_long_as_it_is_fresh",
        "slo._end:replayed": "sso: test_SA_09_a_message_is_remembered_as_long_as_it_is_fresh",
    },
    "SA-10": {
        "wishes.read:NoAuthnContext": "sso: test_SA_08_what_is_not_done_is_said_and_not_left_out",
        "wishes.context_met:NoAuthnContext": "second_lines: test_SA_10_no_answer_reports_a_class_that_was_not_reached",
    },
    "SA-13": {
        "answer._protection:Invalid": "sso: test_SA_13_encrypt_or_refuse_never_plaintext",
        "x509.encrypt:Invalid#1": "second_lines: test_SA_13_no_key_and_no_method_that_could_not_encrypt[key]",
        "x509.encrypt:Invalid#2": "second_lines: test_SA_13_no_key_and_no_method_that_could_not_encrypt[method]",
        "sp_metadata.approve:Invalid": "sso: test_SA_15_what_is_approved_is_what_was_looked_at",
    },
    "SA-14": {
        "wishes.read:InvalidNameIDPolicy": "sso: test_SA_14_names",
        "wishes._kind:InvalidNameIDPolicy": "sso: test_SA_14_names",
        "answer.issue:UnknownPrincipal": "sso: test_SA_14_names",
        "answer._name:InvalidNameIDPolicy": "sso: test_SA_14_names",
        "answer._name:UnknownPrincipal#1": "sso: test_SA_14_mapped_accounts_are_shared_there_and_persons_here",
        "answer._name:UnknownPrincipal#2": "sso: test_SA_14_RV_31_an_email_name_is_never_a_second_persons",
    },
    "SA-15": {
        "metadata.read:Invalid#1": "metadata: test_SA_15_a_document_that_is_refused_says_why[several applications]",
        "metadata.read:Invalid#2": "metadata: test_SA_15_a_document_that_is_refused_says_why[no metadata]",
        "metadata.read:Invalid#3": "metadata: test_SA_15_a_document_that_is_refused_says_why[half a file]",
        "metadata.read:Invalid#4": "metadata: test_SA_15_a_document_that_is_refused_says_why[over]",
        "metadata.read:Invalid#5": "metadata: test_SA_15_a_document_that_is_refused_says_why[two roles]",
        "metadata._facts:Invalid#1": "metadata: test_SA_15_a_document_that_is_refused_says_why[31 addresses]",
        "metadata._facts:Invalid#2": "metadata: test_SA_15_a_document_that_is_refused_says_why[31 keys]",
        "sp_metadata.check_facts:Invalid#1": "metadata: test_SA_15_a_document_that_is_refused_says_why[answers by artifact only]",
        "sp_metadata.check_facts:Invalid#2": "second_lines: test_SA_15_a_name_that_no_column_holds[long]",
        "sp_metadata.check_facts:Invalid#3": "second_lines: test_SA_15_a_name_that_no_column_holds[blank]",
        "sp_metadata.receive:Invalid": "sso: test_SA_15_changed_metadata_waits_for_a_person",
        "sp_metadata.approve:Conflict#1": "sso: test_SA_15_what_is_approved_is_what_was_looked_at",
        "sp_metadata.approve:Conflict#2": "sso: test_SA_15_changed_metadata_waits_for_a_person",
        "sp_metadata.approve:Conflict#3": "sso: test_SA_15_what_is_approved_is_what_was_looked_at",
    },
    "SA-17": {
        "guard._relay_state:relay_state#1": "attack: RelayState of 10 KB",
        "guard._relay_state:relay_state#2": "attack: RelayState with a line break",
    },
    "SA-18": {
        "sso.start:NotFound#1": "sso: test_SA_18_nobody_asked",
        "sso.start:NotFound#2": "sso: test_SA_18_nobody_asked",
        "sso.start:NotFound#3": "sso: test_SA_18_nobody_asked",
    },
    "SA-20": {
        "slo._end:expired": "attack: past its NotOnOrAfter",
        "slo._end:no_name": "attack: encrypted name",
        "slo._end:shared_name": "logout: test_SA_20_a_shared_name_is_never_enough",
        "slo._end:unknown_principal": "logout: test_SA_20_what_does_not_log_out",
        "guard.receive:Refused#2": "attacks: test_AU_01_a_refusal_names_whose_message_it_was",
    },
    "SA-22": {
        "slo._heard:unasked": "attack: answer to nothing",
        "cutter._response:no_logout_response": "tests/contract/test_saml_cutter.py::test_SA_22_an_answer_to_another_request_confirms_nothing",
        "cutter._response:unsigned_response": "tests/contract/test_saml_cutter.py::test_SA_22_anything_but_a_signed_success_is_not_confirmed[unsigned]",
        "cutter._response:signed_by_another": "tests/contract/test_saml_cutter.py::test_SA_22_anything_but_a_signed_success_is_not_confirmed[another's name]",
        "cutter._response:answers_another_request": "tests/contract/test_saml_cutter.py::test_SA_22_an_answer_to_another_request_confirms_nothing",
    },
    "SA-23": {
        "frontchannel._chain:Stale": "logout: test_SA_23_a_chain_does_only_what_it_was_opened_for",
        "frontchannel.ask:NotFound#1": "logout: test_SA_23_a_chain_does_only_what_it_was_opened_for",
        "frontchannel.ask:NotFound#2": "logout: test_SA_23_a_chain_does_only_what_it_was_opened_for",
        "frontchannel.finish:Stale#1": "logout: test_SA_23_a_chain_does_only_what_it_was_opened_for",
        "frontchannel.finish:Stale#2": "logout: test_SA_23_a_chain_does_only_what_it_was_opened_for",
    },
}  # fmt: skip

CUTTER = "tests/contract/test_saml_cutter.py::"
#: requirement, module, function, the text of the rule, the text without it, and the test
RULES: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("SA-01", "idp.edges.saml.xml", "parser", "resolve_entities=False", "resolve_entities=True", "second_lines: test_SA_01_the_parser_itself_expands_nothing"),
    ("SA-01", "idp.edges.saml.xml", "parser", "load_dtd=False", "load_dtd=True", "second_lines: test_SA_01_the_parser_itself_expands_nothing"),
    ("SA-01", "idp.edges.saml.xml", "parser", "attribute_defaults=False", "attribute_defaults=True", "second_lines: test_SA_01_the_parser_itself_expands_nothing"),
    ("SA-01", "idp.edges.saml.xml", "parser", "recover=False", "recover=True", "second_lines: test_SA_01_the_parser_itself_expands_nothing"),
    ("SA-01", "idp.edges.saml.xml", "parser", "huge_tree=False", "huge_tree=True", "second_lines: test_SA_01_the_parser_itself_expands_nothing"),
    ("SA-01", "idp.edges.saml.guard", "receive", "xml.validate(root)", "pass", "attack: signed and off the schema"),
    ("SA-02", "idp.edges.saml.xml", "text", 'node.xpath("string()")', "node.text", "attack: name split by a comment, by Redirect"),
    ("SA-03", "idp.edges.saml.guard", "verify_enveloped", "judge_signature(signature, root)", "pass", "attack: smuggled digest"),
    ("SA-04", "idp.edges.saml.guard", "expected", "signature_methods=SIGNATURE_METHODS, ", "signature_methods=frozenset(SignatureMethod), ",
     "second_lines: test_SA_04_the_verifier_has_the_same_allow_list[method]"),
    ("SA-04", "idp.edges.saml.guard", "expected", "digest_algorithms=DIGESTS", "digest_algorithms=frozenset(DigestAlgorithm)",
     "second_lines: test_SA_04_the_verifier_has_the_same_allow_list[digest]"),
    ("SA-05", "idp.edges.saml.guard", "verify_enveloped", "in certificates:", "in certificates[:1]:", "sso: test_SA_05_every_key_of_the_metadata_and_no_other"),
    ("SA-05", "idp.edges.saml.guard", "_verified", "for der in provider.signing_certs)", "for der in provider.signing_certs[:1])",
     "sso: test_SA_05_every_key_of_the_metadata_and_no_other"),
    ("SA-05", "idp.edges.saml.guard", "verify_enveloped", "signature.remove(info)", "pass", "sso: test_SA_05_every_key_of_the_metadata_and_no_other"),
    ("SA-06", "idp.edges.saml.guard", "_inflate", "octets, MAX_INFLATED + 1", "octets", "attacks: test_SA_06_a_bomb_costs_no_memory"),
    ("SA-06", "idp.edges.saml.guard", "from_redirect", 'b"=" + parts[name]', 'b"=" + __import__("urllib.parse").parse.quote(unquote_to_bytes(parts[name]), safe="").encode()', "sso: test_SA_06_SA_08_requests_that_are_accepted"),
    ("SA-07", "idp.edges.saml.guard", "receive", "_judge(verified, envelope", "(lambda *a, **k: None)(verified, envelope", "attack: 181 seconds old"),
    ("SA-08", "idp.edges.saml.wishes", "_acs", 'if place["url"] == url', 'if url.startswith(place["url"])', "attack: an address with a slash"),
    ("SA-08", "idp.edges.saml.wishes", "_acs", 'if place["index"] == wanted', "if True", "attack: index out of bounds"),
    ("SA-08", "idp.edges.saml.wishes", "_acs", "if url is not None and index is not None:", "if False:", "attack: address and index"),
    ("SA-09", "idp.edges.saml.sso", "_begin", "now + guard.REMEMBER", "now", "sso: test_SA_09_a_message_is_remembered_as_long_as_it_is_fresh"),
    ("SA-09", "idp.edges.saml.slo", "_end", "now + guard.REMEMBER", "now", "sso: test_SA_09_a_message_is_remembered_as_long_as_it_is_fresh"),
    ("SA-10", "idp.edges.saml.wishes", "next_step", "login.auth_time < requested_at", "False", "sso: test_SA_10_force_passive_and_context"),
    ("SA-10", "idp.edges.saml.sso", "_interact", "if wish.passive:", "if False:", "sso: test_SA_10_force_passive_and_context"),
    ("SA-10", "idp.edges.saml.wishes", "context_for", "if have > max(levels)", "if True", "sso: test_SA_10_force_passive_and_context"),
    ("SA-10", "idp.edges.saml.wishes", "context_for", "if acr_at_least(acr, LEVEL[name])", "if True", "sso: test_SA_10_force_passive_and_context"),
    ("SA-11", "idp.edges.saml.build", "response", "if how.assertion:", "if False:", "sso: test_SA_11_SA_12_what_an_answer_says_and_until_when"),
    ("SA-11", "idp.edges.saml.build", "response", "if how.response:", "if False:", "sso: test_SA_11_SA_12_what_an_answer_says_and_until_when"),
    ("SA-12", "idp.edges.saml.build", "_assertion", "NotBefore=stamp(now - BEFORE), ", "", "sso: test_SA_11_SA_12_what_an_answer_says_and_until_when"),
    ("SA-12", "idp.edges.saml.build", "_assertion", '"Audience", said.audience', '"Audience", "x"', "sso: test_SA_11_SA_12_what_an_answer_says_and_until_when"),
    ("SA-12", "idp.edges.saml.build", "_assertion", "Recipient=said.acs", "Recipient=None", "sso: test_SA_11_SA_12_what_an_answer_says_and_until_when"),
    ("SA-12", "idp.edges.saml.build", "_assertion", "InResponseTo=said.in_response_to, ", "", "sso: test_SA_11_SA_12_what_an_answer_says_and_until_when"),
    ("SA-12", "idp.edges.saml.answer", "issue", "ends_at = min(ends_at, ", "ends_at = max(ends_at, ", "sso: test_SA_11_SA_12_what_an_answer_says_and_until_when"),
    ("SA-13", "idp.domain.applications.saml", "check_registration", "not can_encrypt(facts)", "False", "sso: test_SA_13_encrypt_or_refuse_never_plaintext"),
    ("SA-14", "idp.domain.applications.names", "keep_name", "return known_name(session, application_id, account_id, kind)", "return value",
     "sso: test_SA_14_RV_31_an_email_name_is_never_a_second_persons"),
    ("SA-15", "idp.domain.applications.sp_metadata", "differences", "one.before != one.after", "False", "sso: test_SA_15_changed_metadata_waits_for_a_person"),
    ("SA-15", "idp.edges.saml.metadata", "ours", "sign(root, keys[0])", "pass", "metadata: test_SA_15_ours_is_signed_and_ends"),
    ("SA-15", "idp.edges.saml.metadata", "ours", 'root.set("validUntil", stamp(now + VALID))', "pass", "metadata: test_SA_15_ours_is_signed_and_ends"),
    ("SA-16", "idp.core.saml_keys", "SamlKeys.signing", "if key.not_before <= now", "if True", "sso: test_SA_16_a_roll_without_a_gap_and_a_pinned_key"),
    ("SA-16", "idp.core.saml_keys", "SamlKeys.signing", "if key.kid == pinned", "if False", "sso: test_SA_16_a_roll_without_a_gap_and_a_pinned_key"),
    ("SA-17", "idp.edges.saml.sso", "_post", "= wish.relay_state", "= wish.relay_state.strip('>')", "sso: test_SA_11_SA_12_a_person_signs_on_by_redirect"),
    ("SA-19", "idp.edges.posting", "page", 'g.form_action = "http:"', '_ = "http:"', "sso: test_SA_11_SA_12_a_person_signs_on_by_redirect"),
    ("SA-20", "idp.edges.saml.slo", "slo", "must_sign=True", "must_sign=False", "attack: unsigned by Redirect"),
    ("SA-20", "idp.edges.saml.slo", "soap", "must_sign=True", "must_sign=False", "attack: unsigned by SOAP"),
    ("SA-20", "idp.edges.saml.slo", "_sessions", "AppSession.application_id == provider.application_id, ", "", "logout: test_SA_20_what_does_not_log_out"),
    ("SA-20", "idp.edges.saml.slo", "_sessions", "AppSession.sub == xml.text(name), ", "", "logout: test_SA_20_a_shared_name_is_never_enough"),
    ("SA-20", "idp.edges.saml.slo", "_sessions", "query = query.where(AppSession.sid.in_(indexes))", "pass", "logout: test_SA_20_a_shared_name_is_never_enough"),
    ("SA-20", "idp.edges.saml.slo", "_sessions", "query = query.where(AppSession.name_id_format == form)", "pass", "logout: test_SA_20_a_shared_name_is_never_enough"),
    ("SA-21", "idp.edges.saml.cutter", "SamlLogoutCutter._ask", "if shared and not provider.honours_session_index:", "if False:",
     CUTTER + "test_SA_21_a_shared_name_is_not_told_to_who_ends_all_of_it"),
    ("SA-21", "idp.edges.saml.cutter", "SamlLogoutCutter._send", "name.indexes,\n", "(),\n", CUTTER + "test_SA_21_one_signed_request_names_the_person_and_every_session"),
    ("SA-21", "idp.edges.saml.cutter", "SamlLogoutCutter._send", "sign(request, ", "(lambda *a: None)(request, ",
     CUTTER + "test_SA_21_one_signed_request_names_the_person_and_every_session"),
    ("SA-22", "idp.edges.saml.cutter", "_status", 'if codes == ["Success"]:', 'if codes[0] == "Success":',
     CUTTER + "test_SA_22_anything_but_a_signed_success_is_not_confirmed[partial]"),
    ("SA-22", "idp.edges.saml.cutter", "_response", "guard.verify_enveloped(root, provider.signing_certs)", "root",
     CUTTER + "test_SA_22_anything_but_a_signed_success_is_not_confirmed[another's key]"),
    ("SA-23", "idp.edges.saml.frontchannel", "show", "if framed else None,", "if False else None,", "logout: test_SA_23_a_chain_does_only_what_it_was_opened_for"),
)  # fmt: skip

#: requirements whose guard is not a line that could be taken out: what holds them
HELD_OTHERWISE = {
    "SA-30": "this table; the import contract of saml2, signxml and lxml",
    "SA-31": "tests/house/test_saml_traps.py::test_D6_S7_F11_an_answer_starts_no_program_and_writes_no_file",
    "SA-32": "tests/interop/test_xmlsec1.py",
    "SA-33": "tests/functional/test_commands.py::test_bad_settings_stop_a_real_process, in a process of its own; the versions in requirements.lock",
}


def _rules() -> list[tuple[str, Rule, str]]:
    return [
        (requirement, Rule(f"{module.rpartition('.')[2]}.{function}:{old.strip()}", module, function, old, new), test)
        for requirement, module, function, old, new, test in RULES
    ]


@cache
def sites() -> dict[str, Refusal | Rule]:
    """Every guard by its name."""
    found: dict[str, Refusal | Rule] = {site.name: site for site in refusals()}
    return {**found, **{rule.name: rule for _, rule, _ in _rules()}}


@cache
def tests() -> dict[str, str]:
    """Guard → the node id of its test, without the engine."""
    named = {guard: test for guards in GUARDS.values() for guard, test in guards.items()}
    named |= {rule.name: test for _, rule, test in _rules()}
    return {guard: _node(test) for guard, test in named.items()}


def _node(test: str) -> str:
    if "::" in test:
        return test
    where, _, name = test.partition(": ")
    if where == "attack":
        return f"tests/protocol/saml/test_attacks.py::test_SA_01_to_SA_09_refused_and_named_in_the_log[{name}]"
    return f"tests/protocol/saml/test_{where}.py::{name}"


@cache
def _guards() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for guard, node in tests().items():
        found.setdefault(node, []).append(guard)
    return found


def guarded(nodeid: str) -> list[str]:
    """The guards that a collected test shows."""
    return _guards().get(nodeid.replace("[sqlite]", ""), [])
