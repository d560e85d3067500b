// 発注デスク: every page is made here. The server knows two things: who is logged in, and what was ordered.
const app = document.getElementById("app");
const menu = document.getElementById("menu");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function field(id, label, type, autocomplete) {
  return make("p", {}, make("label", { for: id }, label), make("input", { id, name: id, type, autocomplete, required: "" }));
}

async function call(method, path, body) {
  const token = (document.cookie.match(/(?:^|; )order_csrf=([^;]*)/) || [])[1] || "";
  const answer = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: body && JSON.stringify(body),
  });
  return { status: answer.status, data: await answer.json() };
}

function showLogin(problem) {
  menu.replaceChildren();
  const form = make("form", { class: "card narrow", id: "login" }, make("h1", {}, "ログインしてください"));
  if (problem) form.append(make("p", { class: "problem", role: "alert" }, problem));
  form.append(
    field("login_id", "ログインID", "text", "username"),
    field("password", "パスワード", "password", "current-password"),
    make("button", { type: "submit" }, "ログイン"),
  );
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const { status, data } = await call("POST", "/api/login", Object.fromEntries(new FormData(form)));
    if (status === 200) location.href = "/orders";
    else showLogin(data.error === "locked" ? "アカウントがロックされています" : "IDかパスワードが違います");
  });
  app.replaceChildren(form);
}

function showOrders({ items, orders }, notice) {
  const leave = async () => { await call("POST", "/api/logout"); location.href = "/login"; };
  menu.replaceChildren(
    make("a", { href: "/account/password" }, "パスワード変更"),
    make("button", { type: "button", onclick: leave }, "ログアウト"),
  );
  const rows = items.map(item => {
    const count = make("input", { type: "number", min: "1", max: "999", value: "1", "aria-label": `${item.name}の数` });
    const order = async () => {
      const { status, data } = await call("POST", "/api/orders", { item: item.id, count: count.valueAsNumber });
      await load(status === 200 ? `${data.name} ${data.count}個を発注しました` : `発注できませんでした(${data.error})`);
    };
    return make("tr", {}, make("th", { scope: "row" }, item.name), make("td", {}, `${item.price}円`), make("td", {}, String(item.stock)),
      make("td", {}, count), make("td", {}, make("button", { type: "button", onclick: order }, "発注")));
  });
  const head = ["商品", "単価", "在庫", "数", ""].map(text => make("th", { scope: "col" }, text));
  const table = make("table", { "data-orders": "" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  const done = orders.map(order => make("li", {}, `No.${order.number} ${order.name} × ${order.count}`));
  app.replaceChildren(make("h1", {}, "今日の発注"));
  if (notice) app.append(make("p", { class: "notice", role: "status" }, notice));
  app.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "商品" }, table));
  app.append(make("h2", {}, "発注済み"), orders.length ? make("ul", {}, ...done) : make("p", {}, "まだありません"));
}

async function load(notice) {
  const { status, data } = await call("GET", "/api/orders");
  if (status === 200) showOrders(data, notice);
  else showLogin();
}

if (document.body.hasAttribute("data-inside")) load();
else showLogin();
