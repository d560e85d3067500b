"""Who came in: the claims of requirements.md D20 as typed values. Pure; called after a login and per session read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


class InvalidClaims(ValueError):
    """A claim is missing or has another shape than D20 gives it. The text is for the log and names the claim."""


@dataclass(frozen=True, slots=True)
class Store:
    """One assignment: the store and the person's role in it. `code` is unique inside one company only (D19)."""

    code: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Person:
    """One login at this console. `login_name` is `preferred_username`, such as AOBA/0413; `stores` keeps its order."""

    sub: str
    sid: str
    name: str
    login_name: str
    company_code: str
    company_name: str
    stores: tuple[Store, ...]
    functions: tuple[str, ...]

    def may(self, function: str) -> bool:
        """Whether the provider granted `function` of this application."""
        return function in self.functions

    @property
    def store_codes(self) -> list[str]:
        """The codes of the person's own stores, in the order of the claim."""
        return [store.code for store in self.stores]

    def to_json(self) -> str:
        """The stored form; `from_json` reads it back."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Person":
        """The inverse of `to_json`; only ever given what that wrote."""
        values = json.loads(text)
        values["stores"] = tuple(Store(**store) for store in values["stores"])
        values["functions"] = tuple(values["functions"])
        return cls(**values)


def person_from(claims: Mapping[str, object]) -> Person:
    """Read the claims of a verified ID token, with those of userinfo laid over it.

    `sub`, `sid` and `company` are required: without `sid` a logout of one browser could not be told from another, and
    without a company a store code names nothing. Absent `stores` or `functions` mean none. Raises InvalidClaims.
    Source: requirements.md D20.
    """
    company = claims.get("company")
    if not isinstance(company, Mapping):
        raise InvalidClaims("company is not an object")
    stores = _list(claims, "stores")
    if not all(isinstance(store, Mapping) for store in stores):
        raise InvalidClaims("stores holds something else than objects")
    functions = _list(claims, "functions")
    if not all(isinstance(function, str) for function in functions):
        raise InvalidClaims("functions holds something else than strings")
    login_name = _text(claims, "preferred_username", default=_text(claims, "sub"))
    return Person(
        sub=_text(claims, "sub"),
        sid=_text(claims, "sid"),
        name=_text(claims, "name", default=login_name),
        login_name=login_name,
        company_code=_text(company, "code"),
        company_name=_text(company, "name", default=_text(company, "code")),
        stores=tuple(
            Store(
                code=_text(store, "code"),
                name=_text(store, "name", default=_text(store, "code")),
                role=_text(store, "role", default="staff"),
            )
            for store in stores
            if isinstance(store, Mapping)
        ),
        functions=tuple(str(function) for function in functions),
    )


def _text(claims: Mapping[str, object], name: str, *, default: str | None = None) -> str:
    value = claims.get(name, default)
    if not isinstance(value, str) or not value:
        raise InvalidClaims(f"{name} is missing or not a text")
    return value


def _list(claims: Mapping[str, object], name: str) -> list[object]:
    value = claims.get(name, [])
    if not isinstance(value, list):
        raise InvalidClaims(f"{name} is not a list")
    return value
