"""VA-33: a Secret does not slip into text, logs, caches or files by accident."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault import Secret

VALUE = "hunter2-すし"


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param(str, id="str"),
        pytest.param(bytes, id="bytes"),
        pytest.param(format, id="format"),
        pytest.param(lambda s: f"{s}", id="f-string"),
        pytest.param(lambda s: f"{s:>10}", id="f-string-spec"),
        pytest.param(lambda s: f"{s!s}", id="f-string-str"),
        pytest.param("{}".format, id="str.format"),
        pytest.param(lambda s: "%s" % s, id="percent"),  # noqa: UP031
        pytest.param(lambda s: ",".join({"a": s}.values()), id="join"),
        pytest.param(lambda s: "password=" + s, id="concatenate"),
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(lambda s: pickle.dumps([s], protocol=0), id="pickle-0"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda s: copy.deepcopy({"a": s}), id="deepcopy-inside"),
        pytest.param(json.dumps, id="json"),
        pytest.param(lambda s: json.dumps({"a": s}, default=str), id="json-default-str"),
        pytest.param(hash, id="hash"),
        pytest.param(lambda s: {s}, id="set"),
        pytest.param(lambda s: {s: 1}, id="dict-key"),
        pytest.param(lambda s: s == VALUE, id="eq-text"),
        pytest.param(lambda s: VALUE == s, id="eq-text-reversed"),  # noqa: SIM300
        pytest.param(lambda s: s != VALUE, id="ne-text"),
        pytest.param(lambda s: s == Secret(VALUE), id="eq-secret"),
        pytest.param(lambda s: s in ["x", VALUE], id="in-list"),
        pytest.param(len, id="len"),
        pytest.param(iter, id="iter"),
        pytest.param(lambda s: s[0], id="index"),
        pytest.param(lambda s: s < s, id="order"),
        pytest.param(vars, id="vars"),
        pytest.param(lambda s: s.__getstate__(), id="getstate"),
        pytest.param(lambda s: s.__reduce__(), id="reduce"),
    ],
)
def test_VA_33_secret_refuses_every_way_into_text(leak) -> None:
    with pytest.raises(TypeError) as caught:
        leak(Secret(VALUE))
    assert VALUE not in "".join(traceback.format_exception(caught.value))


def test_VA_33_repr_is_the_same_for_every_secret() -> None:
    assert repr(Secret(VALUE)) == repr(Secret(b"")) == f"{Secret('x')!r}" == ascii(Secret("y"))


def test_VA_33_a_log_line_with_a_secret_shows_nothing(caplog, capsys, monkeypatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger = logging.getLogger("test.vault")
    logger.warning("fields %r", {"password": Secret(VALUE)})
    assert VALUE not in caplog.text
    assert VALUE not in "".join(capsys.readouterr())


def test_VA_33_secret_cannot_be_subclassed_back_into_text_by_the_type_checker() -> None:
    assert getattr(Secret, "__final__", False)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_comes_back(text: str) -> None:
    assert Secret(text).reveal() == text
    assert Secret(text).reveal_bytes() == text.encode()


@given(st.binary())
def test_bytes_come_back(data: bytes) -> None:
    assert Secret(data).reveal_bytes() == data


def test_VA_33_bytes_that_are_not_text_are_refused_without_showing_them() -> None:
    with pytest.raises(ValueError, match="not text") as caught:
        Secret(b"canary\xff").reveal()
    _nothing_chained(caught.value)


def test_VA_33_text_that_is_not_utf8_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="surrogate") as caught:
        Secret("canary\ud800")
    _nothing_chained(caught.value)


def _nothing_chained(error: BaseException) -> None:
    # A UnicodeError carries the whole value in `.object`, which crash reporters send away.
    assert not isinstance(error, UnicodeError)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "canary" not in str(error)


@pytest.mark.parametrize("value", [None, 7, bytearray(b"canary"), ["canary"], Secret("canary")])
def test_VA_33_only_text_and_bytes_become_secrets(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        Secret(value)  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)


def test_same_as_compares_values() -> None:
    assert Secret("a").same_as(Secret(b"a"))
    assert not Secret("a").same_as(Secret("b"))
    assert not Secret("a").same_as(Secret("aa"))
