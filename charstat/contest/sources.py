"""What a submission carries of the package: the definitions that its entry reaches, file by file, as they stand in the source.

    reached_sources(seeds)      {path: source}, in the order of imports: a file comes after those that it imports

Found without running anything: from the seeds on, every name that a kept definition uses is kept, in its own module or where it was
imported from. A method is kept if its name is used as an attribute anywhere in what is kept, unless every class derived from its class has
its own; methods with double underscores are kept, too, except those that are said to be unused. Too many rather than too few.

What is not kept is cut out by lines. The other lines stay as they are, comments included, with five exceptions: imports lose the names that
nothing needs any more, functions their annotations, docstrings all but their first sentence, empty lines all but one, and four spaces become a
tab.

It relies on what holds in this package: no `import *`, no conditional definitions except in try, no name looked up by a string except with
getattr(), and no module that does more, when it is imported, than define names.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import charstat
from charstat.errors import ResourceError

PACKAGE = "charstat"
WIDTH = 140
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def package_root() -> Path:
    return Path(charstat.__file__).resolve().parent


@dataclass
class Item:
    """A statement of a module, or a method of a class: what it defines, and what of its lines is its own."""

    node: ast.stmt
    names: tuple[str, ...]
    first: int  # line, comments above included
    last: int
    methods: dict[str, Item] = field(default_factory=dict)


class Module:
    """A module's statements and what its names stand for."""

    def __init__(self, name: str, path: Path):
        self.name, self.path = name, path
        try:
            self.source = path.read_text(encoding="utf-8")
        except OSError as e:
            raise ResourceError(f"cannot read the package's own {path}: {e.strerror or e}") from e
        self.lines = self.source.splitlines()
        self.items: dict[str, Item] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}  # local name -> (module, name in it, or None for the module itself)
        self.statements: list[Item] = []
        self.tree = ast.parse(self.source)
        self._read()

    def _read(self) -> None:
        for node in self.tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imports.update(imported(node))
            item = self._item(node, tuple(bound_names(node)))
            if isinstance(node, ast.ClassDef):
                item.methods = {f.name: self._item(f, (f.name,)) for f in node.body if isinstance(f, FUNCTIONS)}
            self.statements.append(item)
            self.items.update({name: item for name in item.names})

    def _item(self, node: ast.stmt, names: tuple[str, ...]) -> Item:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        while first > 1 and self.lines[first - 2].strip().startswith("#"):
            first -= 1
        return Item(node, names, first, node.end_lineno)


def dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def imported(node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str | None]]:
    if isinstance(node, ast.ImportFrom):
        return {a.asname or a.name: (node.module, a.name) for a in node.names}
    return {a.asname or a.name.partition(".")[0]: (a.name if a.asname else a.name.partition(".")[0], None) for a in node.names}


def bound_names(node: ast.stmt) -> Iterator[str]:
    """What a statement defines in its module; nothing for imports and for what is only there for type checkers."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Try):
        for part in [*node.body, *(s for h in node.handlers for s in h.body)]:
            yield from imported(part) if isinstance(part, (ast.Import, ast.ImportFrom)) else bound_names(part)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def evaluated(node: ast.AST, fields: bool = False) -> Iterator[ast.AST]:
    """The nodes under one, but for annotations. fields: those of variables included."""
    yield node
    for name, value in ast.iter_fields(node):
        if name == "returns" or (name == "annotation" and not (fields and isinstance(node, ast.AnnAssign))):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from evaluated(child, fields)


def without_annotations(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str | None]) -> None:
    """Take the annotations out of the lines of a function's head."""
    a = function.args
    arguments = [arg for arg in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if arg and arg.annotation]
    spans = [(arg.lineno - 1, arg.col_offset + len(arg.arg.encode()), arg.annotation) for arg in arguments]
    if function.returns:
        row = function.returns.lineno - 1
        spans.append((row, lines[row].encode().rindex(b" ->", 0, function.returns.col_offset), function.returns))
    for row, start, annotation in reversed(spans):  # from the right, so that the columns stay right
        assert row == annotation.end_lineno - 1, f"an annotation of {function.name} goes over several lines"
        data = lines[row].encode()
        rest = data[annotation.end_col_offset :]
        lines[row] = (data[:start] + (b"=" + rest[3:] if rest.startswith(b" = ") else rest)).decode()


def tabs(line: str) -> str:
    """A line indented by tabs: a tenth of a source is spaces at the start of lines."""
    text = line.lstrip(" ")
    levels, rest = divmod(len(line) - len(text), 4)
    return "\t" * levels + " " * rest + text


class Reach:
    """The closure of some definitions."""

    def __init__(self, left_out: Iterable[str] = (), unused: Iterable[str] = ()):
        self.left_out, self.unused = tuple(left_out), frozenset(unused)
        self.modules: dict[str, Module] = {}
        self.kept: set[tuple[str, str]] = set()
        self.attributes: set[str] = set()
        self._todo: list[tuple[Module, ast.AST]] = []
        self._waiting: list[tuple[Module, Item, Item]] = []  # methods that nothing calls yet, with their classes
        self._methods: list[int] = []  # those that stay, by identity
        self._derived: list[tuple[set[str], Item]] = []  # classes that are kept, with their bases
        self._made: set[str] = set()  # classes that are called
        self._inherited: set[str] = set()  # methods that are called on super()

    def module(self, name: str) -> Module | None:
        """The package's module of that name; None for one that is not the package's, or left out."""
        if name.split(".")[0] != PACKAGE or any(name == each or name.startswith(each + ".") for each in self.left_out):
            return None
        if name not in self.modules:
            path = package_root().joinpath(*name.split(".")[1:])
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if not path.is_file():
                return None
            if "." in name:
                self.module(name.rpartition(".")[0])
            self.modules[name] = Module(name, path)
        return self.modules[name]

    def keep(self, module: Module, name: str) -> None:
        """Keep a module's name, and all that it needs."""
        if (module.name, name) in self.kept:
            return
        if name in module.items:
            item = module.items[name]
            self.kept.update((module.name, each) for each in item.names)
            self._use(module, item)
        elif name in module.imports:
            self.kept.add((module.name, name))
            self._keep_import(*module.imports[name])

    def _keep_import(self, source: str, name: str | None) -> None:
        found = self.module(source)
        if found is not None and name is not None and self.module(f"{source}.{name}") is None:
            self.keep(found, name)

    def _use(self, module: Module, item: Item) -> None:
        if isinstance(item.node, ast.ClassDef):
            self._waiting += [(module, item, method) for method in item.methods.values()]
            self._derived.append(({self._place(module, base) for base in item.node.bases}, item))
            methods = {method.node for method in item.methods.values()}
            parts = [*item.node.bases, *item.node.keywords, *item.node.decorator_list, *(n for n in item.node.body if n not in methods)]
            self._todo += [(module, part) for part in parts]
        else:
            self._todo.append((module, item.node))

    def close(self) -> None:
        """Follow the uses until there are no more."""
        while self._todo:
            while self._todo:
                self._follow(*self._todo.pop())
            ready = [each for each in self._waiting if self._called(*each)]
            self._waiting = [each for each in self._waiting if each not in ready]
            self._methods += [id(method) for _, _, method in ready]
            self._todo += [(module, method.node) for module, _, method in ready]

    def _called(self, module: Module, owner: Item, method: Item) -> bool:
        """Whether a method can run: something calls one of its name, and not every class that is derived has its own."""
        name, bases = method.names[0], f"{module.name}:{owner.names[0]}"
        if dunder(name):
            return name not in self.unused
        if name not in self.attributes:
            return False
        derived = [item for bases_of, item in self._derived if bases in bases_of]
        return bases in self._made or name in self._inherited or not derived or not all(name in item.methods for item in derived)

    def _place(self, module: Module, node: ast.AST) -> str:
        """module:name of what a name stands for."""
        name = getattr(node, "id", "")
        return ":".join(map(str, module.imports.get(name, (module.name, name))))

    def _follow(self, module: Module, node: ast.AST) -> None:
        for part in evaluated(node):
            if isinstance(part, ast.Call):
                self._made.add(self._place(module, part.func))
            if isinstance(part, ast.Name):
                self.keep(module, part.id)
            elif isinstance(part, ast.ImportFrom):
                for source, name in imported(part).values():
                    self._keep_import(source, name)
            elif isinstance(part, ast.Attribute):
                if isinstance(part.value, ast.Call) and getattr(part.value.func, "id", None) == "super":
                    self._inherited.add(part.attr)
                owner = module.imports.get(part.value.id) if isinstance(part.value, ast.Name) else None
                if owner is None or owner[0].split(".")[0] == PACKAGE:
                    self.attributes.add(part.attr)
                    found = None if owner is None else self.module(".".join(filter(None, owner)))
                    if found is not None:
                        self.keep(found, part.attr)
            elif isinstance(part, ast.Call) and getattr(part.func, "id", None) == "getattr" and isinstance(part.args[1], ast.Constant):
                self.attributes.add(part.args[1].value)

    def text(self, module: Module) -> str:
        """What is left of a module."""
        lines: list[str | None] = list(module.lines)
        for item in module.statements:
            if isinstance(item.node, (ast.Import, ast.ImportFrom)):
                self._cut_import(module, item, lines)
            elif not self._stays(module, item):
                self._cut(item, lines)
            else:
                for method in item.methods.values():
                    if id(method) not in self._methods:
                        self._cut(method, lines)
        for node in ast.walk(module.tree):
            if isinstance(node, FUNCTIONS) and lines[node.lineno - 1] is not None:
                without_annotations(node, lines)
        if module.path.name == "__init__.py" and all(name != module.name for name, _ in self.kept):
            return ""  # a package that only holds modules
        self._shorten_docstrings(module, lines)
        text = "\n".join(tabs(line) for line in lines if line is not None)
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"

    def _shorten_docstrings(self, module: Module, lines: list[str | None]) -> None:
        """Leave the first sentence of what functions and classes say of themselves, and a module's first paragraph."""
        for node in ast.walk(module.tree):
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)) or ast.get_docstring(node) is None:
                continue
            first, last = node.body[0].lineno - 1, node.body[0].end_lineno - 1
            if lines[first] is None:
                continue
            said = "\n".join(module.lines[first : last + 1]).rstrip()[:-3]
            end = said.find("\n\n")
            if not isinstance(node, ast.Module):
                stop_sign = r"(?<!\.)\.(?= )" if first == last else r"[.:;](?=\s)"  # of a single line, all that a full stop ends
                sentence = re.search(stop_sign, said)
                stop = sentence.end() if sentence else -1
                if said.count("(", 0, stop) > said.count(")", 0, stop):  # it ends within parentheses: leave them out
                    stop = said.rfind("(", 0, stop)
                end = min(filter(lambda at: at >= 0, (end, stop, len(said))))
            short = said[: end if end >= 0 else len(said)].rstrip().rstrip(":;") + '"""'
            lines[first : last + 1] = [*short.split("\n"), *[None] * (last - first - short.count("\n"))]

    def _stays(self, module: Module, item: Item) -> bool:
        if item.names:
            return any((module.name, name) in self.kept for name in item.names)
        node, at = item.node, module.statements.index(item)
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            return False  # for type checkers, or a check of the package itself
        return at == 0 or self._stays(module, module.statements[at - 1])  # a docstring: the module's, or of what stands above

    def _cut(self, item: Item, lines: list[str | None]) -> None:
        lines[item.first - 1 : item.last] = [None] * (item.last - item.first + 1)

    def _cut_import(self, module: Module, item: Item, lines: list[str | None]) -> None:
        """Leave of an import what is still needed, annotations of variables included where the module is another package's."""
        node = item.node
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return
        own = isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == PACKAGE
        wanted = [local for local in imported(node) if ((module.name, local) in self.kept if own else local in self._mentioned(module))]
        if len(wanted) == len(node.names) and not own:
            return
        self._cut(item, lines)
        if wanted and isinstance(node, ast.ImportFrom):
            aliases = [a.name + (f" as {a.asname}" if a.asname else "") for a in node.names if (a.asname or a.name) in wanted]
            line = f"from {node.module} import {', '.join(aliases)}"
            if len(line) > WIDTH:
                line = (
                    f"from {node.module} import (\n"
                    + textwrap.fill(", ".join(aliases), WIDTH, initial_indent="\t", subsequent_indent="\t")
                    + "\n)"
                )
            lines[item.last - 1] = line

    def _mentioned(self, module: Module) -> set[str]:
        """Names in what is kept of a module, annotations of variables included."""
        names = set()
        for item in module.statements:
            if not isinstance(item.node, (ast.Import, ast.ImportFrom)) and self._stays(module, item):
                cut = {m.node for m in item.methods.values() if id(m) not in self._methods}
                parts = [n for n in item.node.body if n not in cut] if isinstance(item.node, ast.ClassDef) else [item.node]
                parts += [*item.node.bases, *item.node.decorator_list] if isinstance(item.node, ast.ClassDef) else []
                names |= {n.id for part in parts for n in evaluated(part, fields=True) if isinstance(n, ast.Name)}
        return names

    def in_order(self) -> list[Module]:
        """The modules that something is kept of, and their packages; imports first."""
        done: dict[str, Module] = {}

        def visit(module: Module) -> None:
            if module.name in done or module.name in path:
                return
            path.append(module.name)
            if "." in module.name:
                visit(self.modules[module.name.rpartition(".")[0]])
            for local, (source, name) in module.imports.items():
                if (module.name, local) in self.kept:
                    for each in (source, f"{source}.{name}"):
                        if each in self.modules:
                            visit(self.modules[each])
            path.pop()
            done[module.name] = module

        path: list[str] = []
        wanted = {name for name, _ in self.kept}
        for name in sorted(wanted):
            visit(self.modules[name])
        return list(done.values())


def reached_sources(
    seeds: Iterable[str], methods: Iterable[str] = (), left_out: Iterable[str] = (), unused: Iterable[str] = ()
) -> dict[str, str]:
    """{path, such as charstat/tree.py: source} of what is reached from the seeds ("charstat.contest.entry:Entry").

    methods: names that are called from outside; left_out: modules that are imported only in functions that will not run; unused: methods
    with double underscores that nothing will call.
    """
    reach = Reach(left_out, unused)
    reach.attributes |= set(methods)
    for seed in seeds:
        name, _, definition = seed.partition(":")
        module = reach.module(name)
        assert module is not None and definition in module.items, seed
        reach.keep(module, definition)
    reach.close()
    root = package_root().parent
    return {module.path.relative_to(root).as_posix(): reach.text(module) for module in reach.in_order()}
