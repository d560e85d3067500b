"""シフトノート: a shift table as many shops have it. Server-made pages in CP932, three login fields, a CSRF token.

`python -m connectors.demo.tools shift-note` serves it; `create_shift_note()` is what tests use.
"""

import csv
import io
from dataclasses import dataclass
from urllib.parse import parse_qs

from flask import Flask, Response, redirect, render_template, request
from werkzeug.exceptions import BadRequest

from connectors.demo.tools.desk import SESSION_S, Account, Desk, Session, headers

COOKIE = "SHIFTSESSID"
CHARSET = "cp932"
MAX_BODY = 64 * 1024
DAYS = ("月", "火", "水", "木", "金", "土", "日")


@dataclass
class Row:
    """One person's week; a cell is free text such as 9-17."""

    name: str
    cells: list[str]


def first_rows() -> list[Row]:
    """A week that looks like one."""
    return [
        Row("田中 美咲", ["9-17", "9-17", "", "9-17", "9-17", "", ""]),
        Row("髙橋 健", ["", "13-21", "13-21", "", "13-21", "10-18", ""]),
        Row("グエン・ヴァン・アン", ["17-22", "", "17-22", "17-22", "", "17-22", "17-22"]),
    ]


def create_shift_note(account: Account) -> Flask:
    """The tool for one shop. account.names: `corp_cd` and `login_id`."""
    app = Flask(__name__, template_folder="templates", static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    desk, rows = Desk(account), first_rows()
    app.after_request(headers("default-src 'self'; frame-ancestors 'none'"))

    def page(name: str, **values: object) -> Response:
        body = render_template(f"shift_{name}.html", days=DAYS, **values).encode(CHARSET, "xmlcharrefreplace")
        return Response(body, content_type=f"text/html; charset={CHARSET}")

    def form() -> dict[str, str]:
        # Flask reads forms as UTF-8; this tool's browsers send what its pages are written in.
        read = parse_qs(request.get_data().decode("ascii", "replace"), encoding=CHARSET, keep_blank_values=True)
        return {name: values[0] for name, values in read.items()}

    def mine(given: dict[str, str] | None = None) -> Session | None:
        session = desk.session(COOKIE)
        if session is not None and given is not None and given.get("token") != session.token:
            raise BadRequest
        return session

    @app.route("/login", methods=["GET", "POST"])
    def login() -> Response:
        if request.method == "GET":
            return page("login", problem="")
        session, problem = desk.log_in(form())
        if problem:
            return page("login", problem=problem)
        answer = redirect("/shifts")
        answer.set_cookie(COOKIE, session, httponly=True, samesite="Lax", max_age=SESSION_S)
        return answer  # type: ignore[return-value]

    @app.get("/")
    @app.get("/shifts")
    def shifts() -> Response:
        session = mine()
        if session is None:
            return redirect("/login")  # type: ignore[return-value]
        notice, session.notice = session.notice, ""
        return page("table", rows=rows, token=session.token, notice=notice)

    @app.post("/shifts")
    def change() -> Response:
        given = form()
        session = mine(given)
        if session is None:
            return redirect("/login")  # type: ignore[return-value]
        try:
            row, day = rows[int(given["row"])], int(given["day"])
            row.cells[day] = given["hours"].strip()[:11]
        except (KeyError, ValueError, IndexError):
            raise BadRequest from None
        session.notice = f"{row.name} さんの{DAYS[day]}曜日を保存しました"
        return redirect("/shifts", code=303)  # type: ignore[return-value]

    @app.get("/shifts.csv")
    def download() -> Response:
        if mine() is None:
            return redirect("/login")  # type: ignore[return-value]
        out = io.StringIO()
        csv.writer(out, lineterminator="\r\n").writerows([["氏名", *DAYS], *([row.name, *row.cells] for row in rows)])
        answer = Response(out.getvalue().encode(CHARSET, "replace"), content_type=f"text/csv; charset={CHARSET}")
        answer.headers["Content-Disposition"] = "attachment; filename=shifts.csv"
        return answer

    @app.route("/account/password", methods=["GET", "POST"])
    def password() -> Response:
        given = form() if request.method == "POST" else None
        session = mine(given)
        if session is None:
            return redirect("/login")  # type: ignore[return-value]
        if given is None:
            return page("password", token=session.token, problem="", done=False)
        old, new, again = (given.get(name, "") for name in ("old_pw", "new_pw", "new_pw2"))
        problem = desk.change_password(old, new, again, keep=session)
        return page("password", token=session.token, problem=problem, done=not problem)

    @app.route("/logout", methods=["GET", "POST"])
    def logout() -> Response:
        desk.log_out(COOKIE)
        return redirect("/login")  # type: ignore[return-value]

    return app
