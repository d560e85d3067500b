"""発注デスク: an ordering tool whose pages are made by a script in the browser, but for one. Logins and orders are JSON.

Its CSRF token is in a cookie that the script reads and sends back as a header, as many such tools do.
"""

from typing import Any

from flask import Flask, Response, jsonify, redirect, render_template, request
from werkzeug.exceptions import BadRequest

from connectors.demo.tools.desk import SESSION_S, Account, Desk, Session, headers

COOKIE = "order_session"
TOKEN = "order_csrf"
MAX_BODY = 16 * 1024
ITEMS = (("おにぎり 鮭", 120, 48), ("サンドイッチ ハム", 240, 20), ("緑茶 500ml", 98, 96), ("からあげ弁当", 480, 12))


def create_order_desk(account: Account) -> Flask:
    """The tool for one shop. account.names: `login_id`."""
    app = Flask(__name__, template_folder="templates", static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    desk = Desk(account)
    orders: list[dict[str, Any]] = []
    app.after_request(headers("default-src 'self'; frame-ancestors 'none'"))

    def mine() -> Session | None:
        return desk.session(COOKIE)

    def refused(status: int, why: str) -> Response:
        answer = jsonify(error=why)
        answer.status_code = status
        return answer

    @app.get("/")
    @app.get("/login")
    @app.get("/orders")
    def shell() -> str:
        # One page for every address: the script asks the API who is there and shows the login or the orders.
        return render_template("order.html", inside=mine() is not None and request.path != "/login")

    @app.post("/api/login")
    def login() -> Response:
        given = request.get_json(silent=True)
        session, problem = desk.log_in({k: str(v) for k, v in given.items()} if isinstance(given, dict) else {})
        if problem:
            return refused(403, problem)
        answer = jsonify(ok=True)
        answer.set_cookie(COOKIE, session, httponly=True, samesite="Lax", max_age=SESSION_S)
        answer.set_cookie(TOKEN, account.sessions[session].token, samesite="Lax", max_age=SESSION_S)
        return answer

    @app.get("/api/orders")
    def listing() -> Response:
        if mine() is None:
            return refused(401, "login")
        items = [
            {"id": i, "name": name, "price": price, "stock": stock} for i, (name, price, stock) in enumerate(ITEMS)
        ]
        return jsonify(items=items, orders=orders)

    @app.post("/api/orders")
    def order() -> Response:
        session = mine()
        if session is None:
            return refused(401, "login")
        if request.headers.get("X-CSRF-Token") != session.token:
            return refused(403, "csrf")
        given = request.get_json(silent=True)
        item, count = (given.get("item"), given.get("count")) if isinstance(given, dict) else (None, None)
        if type(item) is not int or type(count) is not int or not 0 <= item < len(ITEMS) or not 1 <= count <= 999:
            return refused(400, "item, count")
        orders.append({"number": len(orders) + 1, "name": ITEMS[item][0], "count": count})
        return jsonify(orders[-1])

    @app.route("/account/password", methods=["GET", "POST"])
    def password() -> Response | str:
        # the one page that the server makes, as many such tools have one left
        session = mine()
        if session is None:
            return redirect("/login")  # type: ignore[return-value]
        if request.method == "GET":
            return render_template("order_password.html", token=session.token, problem="", done=False)
        if request.form.get("token") != session.token:
            raise BadRequest
        old, new, again = (request.form.get(name, "") for name in ("old_pw", "new_pw", "new_pw2"))
        problem = desk.change_password(old, new, again, keep=session)
        return render_template("order_password.html", token=session.token, problem=problem, done=not problem)

    @app.post("/api/logout")
    def logout() -> Response:
        desk.log_out(COOKIE)
        return jsonify(ok=True)

    return app
