"""Where the SAML door says no, and how to take one of these places out.

A *refusal* is an `if` whose body raises or counts a refusal, a `raise` in a handler or at a function's end. Each is a site of
its own; where the test of an `if` is a chain of `or`, each link is one. Removing a link makes it false; removing a handler's
refusal lets the error through; what stands at a function's end is replaced by what `INSTEAD` says. A *rule* is a place that
refuses without a `raise`: a filter of a query, a parser's option, a signature; it is named with the text that replaces it.
`tests/saml_guards.py` says which test goes red for each of them.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).resolve().parents[1]
#: everything that reads a message or a document of somebody else
MODULES = (
    *(f"idp.edges.saml.{name}" for name in ("guard", "xml", "sso", "slo", "frontchannel", "wishes", "answer", "cutter", "metadata")),
    "idp.core.x509", "idp.domain.applications.sp_metadata",
)  # fmt: skip
#: what stands in the place of a refusal that is the last statement of its function
INSTEAD = {
    "guard.verify_enveloped:bad_signature": "return root",
    "wishes._kind:InvalidNameIDPolicy": "return provider.name_id",
}


Where = tuple[int, int, int | None, int | None]
#: word, place, and what is put there
Place = tuple[str, Where, str]
#: functions that only say how a refusal is shown: whoever calls them refuses
SHOWN_BY = {"sso._again", "sso.refused"}


@dataclass(frozen=True)
class Refusal:
    """One place that says no. name: `module.function:word`, with `#n` where the word stands there more than once.

    where: begin and end of the node that is replaced; how: what happens to it.
    """

    name: str
    module: str
    function: str
    where: Where
    how: str = "False"

    @property
    def code(self) -> CodeType:
        """The function's code without it."""
        tree = ast.parse(_source(self.module))
        change = _Replace(self.where, self.how)
        tree = ast.fix_missing_locations(change.visit(tree))
        assert change.hits == 1, f"{self}: {change.hits} places were rewritten"
        return _code_of(tree, self.module, self.function)


@dataclass(frozen=True)
class Rule:
    """One place that refuses without a raise. old: its text, once in the function; new: the text without it."""

    name: str
    module: str
    function: str
    old: str
    new: str

    @property
    def code(self) -> CodeType:
        """The function's code without it."""
        source = _source(self.module)
        node = _function(ast.parse(source), self.function)
        lines = source.splitlines(keepends=True)
        begin, end = node.lineno - 1, node.end_lineno
        text = "".join(lines[begin:end])
        assert text.count(self.old) == 1, f"{self.name}: {text.count(self.old)} × {self.old!r}"
        changed = "".join(lines[:begin]) + text.replace(self.old, self.new) + "".join(lines[end:])
        return _code_of(ast.parse(changed), self.module, self.function)


def path_of(module: str) -> Path:
    """The file of a module."""
    return ROOT / Path(*module.split(".")).with_suffix(".py")


def _source(module: str) -> str:
    return path_of(module).read_text(encoding="utf-8")


def _function(tree: ast.AST, name: str) -> ast.FunctionDef:
    for part in name.split("."):
        tree = next(
            n for n in ast.iter_child_nodes(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part
        )
    assert isinstance(tree, ast.FunctionDef)
    return tree


def _code_of(tree: ast.Module, module: str, function: str) -> CodeType:
    code = compile(tree, str(path_of(module)), "exec", dont_inherit=True)
    for part in function.split("."):
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == part)
    return code


# --- finding ---------------------------------------------------------------------------------------------------------


def refusals() -> list[Refusal]:
    """Every place that says no, in the order of the files."""
    found: list[Refusal] = []
    for module in MODULES:
        short = module.rsplit(".", 1)[-1]
        places = [
            (f"{short}.{function}:{word}", function, where, how)
            for function, node in _functions(ast.parse(_source(module)), [])
            if f"{short}.{function}" not in SHOWN_BY
            for word, where, how in _in_block(node.body)
        ]
        many, number = Counter(name for name, *_ in places), Counter[str]()
        for name, function, where, how in places:
            number[name] += 1
            full = f"{name}#{number[name]}" if many[name] > 1 else name
            found.append(Refusal(full, module, function, where, INSTEAD.get(full, how)))
    return found


def _functions(node: ast.AST, inside: list[str]) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _functions(child, [*inside, child.name])
        elif isinstance(child, ast.FunctionDef):
            yield ".".join([*inside, child.name]), child


def _in_block(block: list[ast.stmt]) -> Iterator[Place]:
    for statement in block:
        match statement:
            case ast.If():
                word = _word_of(statement.body)
                if word is not None:
                    for link in _links(statement.test):
                        yield word, _where(link), "False"
                else:
                    yield from _in_block(statement.body)
                yield from _in_block(statement.orelse)
            case ast.Raise() if statement.exc is not None:
                yield _word(statement), _where(statement), "return None"
            case ast.Try():
                yield from _in_block(statement.body)
                for handler in statement.handlers:
                    for inner in handler.body:
                        if isinstance(inner, ast.Raise) and inner.exc is not None:
                            yield _word(inner), _where(inner), "raise"
                        else:
                            yield from _in_block([inner])
            case ast.For() | ast.While() | ast.With():
                yield from _in_block(statement.body)
            case ast.Match():
                for case in statement.cases:
                    yield from _in_block(case.body)


def _links(test: ast.expr) -> list[ast.expr]:
    return test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) else [test]


def _word_of(body: list[ast.stmt]) -> str | None:
    """What an `if` refuses with: the last raise of its body, or the refusal that it counts."""
    if isinstance(body[-1], ast.Raise):
        return _word(body[-1])
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            call = statement.value
            if isinstance(call.func, ast.Name) and call.func.id == "count_refusal":
                word = ast.unparse(call.args[2]).removeprefix("f").strip("'\"").split(":")[0]
                return None if "{" in word else word  # who counts what somebody else refused is no guard
    return None


def _word(statement: ast.Raise) -> str:
    """The machine word of an exception, or its name where it carries a sentence for people."""
    call = statement.exc
    if isinstance(call, ast.Call):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "?")
        first = call.args[0] if call.args else None
        if name in {"Refused", "Malformed", "Refusal"} and isinstance(first, ast.Constant):
            return str(first.value)
        return name
    return "?"


def _where(node: ast.expr | ast.stmt) -> Where:
    return (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)


class _Replace(ast.NodeTransformer):
    def __init__(self, where: Where, how: str) -> None:
        self.where, self.how, self.hits = where, how, 0

    def visit(self, node: ast.AST) -> ast.AST:
        kind = ast.expr if self.how == "False" else ast.stmt
        if not isinstance(node, kind) or _where(node) != self.where:
            return self.generic_visit(node)
        self.hits += 1
        if self.how == "False":
            return ast.copy_location(ast.Constant(value=False), node)
        made = ast.parse(f"def f():\n try: pass\n finally:\n  {self.how}").body[0].body[0].finalbody[0]  # type: ignore[attr-defined]
        return ast.copy_location(made, node)
