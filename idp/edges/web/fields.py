"""What the forms of all pages are made of: the base, labels in the reader's language, and checks that name their field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask_wtf import FlaskForm
from markupsafe import escape
from wtforms import Field, PasswordField, SelectChoice
from wtforms.validators import InputRequired, Length, StopValidation, ValidationError

from idp.core.errors import SekishoError
from idp.edges import language


class Form(FlaskForm):  # type: ignore[misc]
    """Base: messages in the language of the request; domain errors land on the field they name."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        def get_translations(self, form: Any) -> Any:  # noqa: ARG002
            """Our own words for what WTForms finds wrong; its Japanese speaks of invalid types."""
            return _Words()

    def validate(self, extra_validators: Any = None) -> bool:
        """A NUL in a text is refused at its field: PostgreSQL takes none. Passwords have a rule of their own (AC-01)."""
        good = bool(super().validate(extra_validators))
        for field in self:
            if isinstance(field.data, str) and "\0" in field.data and not isinstance(field, PasswordField):
                field.errors = [*field.errors, language.text("見えない文字が入っています。入れ直してください。")]
                good = False
        return good

    def refuse(self, error: SekishoError) -> None:
        """Show a domain error at its field, or above the form when it names none of ours."""
        message = language.text(error.public, **error.values)
        field = self._fields.get(error.field or "")
        if field is not None:
            field.errors = [*field.errors, message]
        else:
            self.form_errors: list[str] = [*self.form_errors, message]


def lazy(message: str) -> Any:
    """A label that is translated when the form is shown, not when the module is read."""
    return _Lazy(message)


class _Lazy:
    def __init__(self, message: str) -> None:
        self._message = message

    def __str__(self) -> str:
        return language.text(self._message)

    def __mod__(self, values: Any) -> str:
        filled: str = str(self) % values
        return filled

    def __html__(self) -> str:
        return str(escape(str(self)))


def choices(pairs: Iterable[tuple[str, Any]]) -> list[SelectChoice]:
    """(value, label) pairs for a select or radio field."""
    return [SelectChoice(value, label) for value, label in pairs]


class _Words:
    """What WTForms says by itself, in sentences that tell what to enter."""

    def gettext(self, message: str) -> str:
        """Its English sentence → ours; placeholders are filled in by WTForms."""
        ours = _SAID.get(message)
        return message if ours is None else str(ours)

    def ngettext(self, one: str, many: str, count: int) -> str:
        """Only lengths are counted, and `AtMost` says those."""
        return one if count == 1 else many


_SAID = {
    "Not a valid choice.": lazy("一覧の中から選んでください。"),
    "Not a valid date value.": lazy("日付として読めません。例:2026-04-01"),
    "Not a valid datetime value.": lazy("日時として読めません。例:2026-04-01T09:00"),
    "Not a valid integer value.": lazy("数字で入れてください。"),
    "Number must be between %(min)s and %(max)s.": lazy("%(min)sから%(max)sまでの数字を入れてください。"),
}


class Required(InputRequired):  # type: ignore[misc]
    """Something has to be entered; the error says where, because the summary above the form lists several (ux.md 11, 45)."""

    def __call__(self, form: Any, field: Field) -> None:  # noqa: ARG002
        """Raises StopValidation."""
        if not (field.raw_data and field.raw_data[0]):
            field.errors = []
            raise StopValidation(language.text("「%(field)s」を入れてください。", field=field.label.text))


class AtMost(Length):  # type: ignore[misc]
    """No more characters than the column holds."""

    def __init__(self, most: int) -> None:
        super().__init__(max=most)

    def __call__(self, form: Any, field: Field) -> None:  # noqa: ARG002
        """Raises ValidationError."""
        if len(field.data or "") > self.max:
            said = language.text("「%(field)s」は%(max)s文字までにしてください。", field=field.label.text, max=self.max)
            raise ValidationError(said)
