"""Holds the code to docs/architecture.md: who may import whom, and what each floor may do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bridge"
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}

# From the ground up: a module imports only from its own floor and those below.
FLOORS = {
    "words": "models messages markdown markdown_parts markdown_safety policy chat kapa.wire "
    "slack.read slack.write slack.interactions",
    "worlds": "inbox inbox_scripts dead_letters journal store rate_limit streams pauses circuit_breaker redis_client "
    "pipelining embedded_redis kapa.client slack.chat slack.web_api",
    "journeys": "work timing worker display status answer feedback",
    "doors": "__main__ cli app check admin watch metrics history status_page traces report slack.app slack.http "
    "slack.socket slack.manifest",
}
BESIDE = {"bridge.settings", "bridge.log"}
# They hold a docstring, and the first one a version and what is kept out of every start.
PACKAGES = {"bridge", "bridge.kapa", "bridge.slack", "bridge.playground"}
FLOOR_OF = {f"bridge.{name}": number for number, names in enumerate(FLOORS.values()) for name in names.split()}
WORDS = [f"bridge.{name}" for name in FLOORS["words"].split()]
PURE = {
    "collections.abc",
    "dataclasses",
    "datetime",
    "email.utils",
    "enum",
    "functools",
    "html",
    "http",
    "itertools",
    "json",
    "markdown_it",
    "markdown_it.token",
    "math",
    "pydantic",
    "re",
    "string",
    "typing",
    "urllib.parse",
}
DOORS = len(FLOORS) - 1
AT_IMPORT = re.compile(
    r"""structlog\.get_logger | re\.(compile|findall) | compile_pattern | TypeVar | frozenset | Path | Path\(.*\)\.\w+
    | lru_cache | '.'\.encode | JSONDecoder | aiohttp\.ClientTimeout                                         # values
    | dataclass | field | auto | Field | AfterValidator | BeforeValidator | SettingsConfigDict            # declarations
    | _label | _matches | _or_none
    | typer\.(Typer|Option|Argument) | \w+\.(add_typer|command|callback)                                     # typer
    | sys\.modules\.setdefault                                                                     # OpenTelemetry, rich
    | Person | Pace | SlackLimits | web\.RequestKey                                                    # playground
    """,
    re.VERBOSE,
)

LOGGING = r"(log|structlog\.get_logger\(\))\.(debug|info|warning|error|critical|exception|log)"


def is_playground(module: str) -> bool:
    return module.startswith("bridge.playground.")


def imports(module: str) -> Iterator[str]:
    """Give what a module imports, anywhere in it, as dotted names of modules."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            source = node.module or ""
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in SOURCES else source


def own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name in SOURCES} - PACKAGES


def test_every_module_has_a_floor() -> None:
    known = {*FLOOR_OF, *BESIDE, *PACKAGES}
    assert {name for name in SOURCES if not is_playground(name)} == known


@pytest.mark.parametrize("module", FLOOR_OF)
def test_modules_import_only_from_their_floor_or_below(module: str) -> None:
    above = {name for name in own_imports(module) if name in FLOOR_OF and FLOOR_OF[name] > FLOOR_OF[module]}
    assert above == set()


@pytest.mark.parametrize("module", [name for name in SOURCES if name not in PACKAGES])
def test_only_doors_know_the_settings_and_the_playground(module: str) -> None:
    found = own_imports(module)
    is_door = FLOOR_OF.get(module) == DOORS or is_playground(module)
    assert "bridge.settings" not in found or is_door
    assert "bridge.log" not in found or is_door
    if not is_playground(module) and module != "bridge.cli":
        assert not any(is_playground(name) for name in found)


@pytest.mark.parametrize("module", sorted(BESIDE))
def test_what_stands_beside_knows_words_alone(module: str) -> None:
    assert own_imports(module) <= set(WORDS)


def test_the_simulated_worlds_know_nothing_of_the_bridge() -> None:
    doors = {f"bridge.playground.{name}" for name in ("run", "bonnet", "redis_watch", "redis_house")}
    for module in filter(is_playground, SOURCES):
        if module not in doors:
            assert all(is_playground(name) for name in own_imports(module)), module


@pytest.mark.parametrize("module", ["bridge.answer", "bridge.display", "bridge.feedback", "bridge.worker"])
def test_journeys_know_nothing_of_slack(module: str) -> None:
    assert not any(name.startswith(("bridge.slack", "slack_")) for name in imports(module))


# Words


@pytest.mark.parametrize("module", WORDS)
def test_words_do_no_io(module: str) -> None:
    # The file of sentences is read where its form is known.
    allowed = PURE | ({"pathlib", "tomllib"} if module == "bridge.messages" else set())
    assert {name for name in imports(module) if not name.startswith("bridge")} <= allowed
    for node in ast.walk(TREES[module]):
        assert not isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith)
        assert not isinstance(node, ast.AsyncFunctionDef) or module == "bridge.chat"
        if isinstance(node, ast.Call):
            assert not re.search(r"(^|\.)(open|print|input|now|utcnow|today|getenv)$", ast.unparse(node.func))


def test_the_chat_s_protocol_promises_and_does_nothing() -> None:
    for node in ast.walk(TREES["bridge.chat"]):
        if isinstance(node, ast.AsyncFunctionDef):
            assert [type(statement) for statement in node.body] == [ast.Expr], node.name


# The environment


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_settings_read_the_environment(module: str) -> None:
    readers = [
        ast.unparse(node)
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "getenvb", "expandvars"}
    ]
    names = {alias.name for node in ast.walk(TREES[module]) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not names & {"environ", "getenv"}
    # The playground gives its child what a process needs to run at all; OpenTelemetry's SDK reads nothing else.
    assert not readers or module in {"bridge.playground.processes", "bridge.settings"}


def test_the_settings_are_the_only_ones_to_make_settings_of_it() -> None:
    makers = {name for name in SOURCES if any(found.startswith("pydantic_settings") for found in imports(name))}
    assert makers == {"bridge.settings"}


# Nothing happens at import


def at_import(node: ast.AST) -> Iterator[ast.Call]:
    """Give the calls that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [default for default in (*child.args.defaults, *child.args.kw_defaults) if default]
            for part in (*child.decorator_list, *defaults):
                yield from at_import(ast.Expr(part))
        elif not isinstance(child, ast.Lambda):
            if isinstance(child, ast.Call):
                yield child
            yield from at_import(child)


def is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


@pytest.mark.parametrize("module", SOURCES)
def test_importing_does_nothing(module: str) -> None:
    body = [node for node in TREES[module].body if not is_main_guard(node)]
    for node in body:
        assert isinstance(
            node,
            ast.Import
            | ast.ImportFrom
            | ast.Assign
            | ast.AnnAssign
            | ast.ClassDef
            | ast.FunctionDef
            | ast.AsyncFunctionDef
            | ast.Expr,
        ), f"line {node.lineno}"
    calls = {ast.unparse(call.func) for call in at_import(ast.Module(body, []))}
    assert {call for call in calls if not AT_IMPORT.fullmatch(call)} == set()


@pytest.mark.parametrize("module", SOURCES)
def test_there_are_no_globals_but_constants(module: str) -> None:
    assert not any(isinstance(node, ast.Global) for node in ast.walk(TREES[module]))
    names = {
        target.id
        for node in TREES[module].body
        if isinstance(node, ast.Assign) or (isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "Final")
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    # A constant, a type, the logger; the command line is made of typer's objects.
    allowed = re.compile(
        r"_{0,2}[A-Z]\w*|__(version|all)__|log" + ("|cli|dead_letters" if module == "bridge.cli" else "")
    )
    assert {name for name in names if not allowed.fullmatch(name)} == set()


# What people read


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_says_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(TREES[module])
    assert docstring is not None
    assert docstring.splitlines()[0].endswith((".", ":", "?", "…")) or docstring.splitlines()[1:], module


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_is_left_to_do(module: str) -> None:
    text = SOURCES[module].read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplemented", text)
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ExceptHandler) and isinstance(node.body[0], ast.Pass):
            assert ast.unparse(node.type or ast.Name("all")) not in {"all", "Exception", "BaseException"}


@pytest.mark.parametrize("module", SOURCES)
def test_functions_are_small(module: str) -> None:
    long = {
        node.name: lines
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert long == {}


@pytest.mark.parametrize("module", SOURCES)
def test_events_are_logged_under_constant_names(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and re.fullmatch(LOGGING, ast.unparse(node.func)):
            event = node.args[0]
            for name in (event.body, event.orelse) if isinstance(event, ast.IfExp) else (event,):
                assert re.fullmatch(r"'[a-z][a-z_]+'", ast.unparse(name)), f"line {node.lineno}"


def test_the_documentation_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]+)`", text))
    parts = {"inbox_scripts", "__main__"}
    modules = {name.removeprefix("bridge.").replace(".", "/") for name in {*FLOOR_OF, *BESIDE}} - parts
    assert modules <= named


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "SECURITY.md"], ids=lambda page: page.name
)
def test_a_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`(test_\w+)(?:\.py)?(?:::(\w+))?`", page.read_text(encoding="utf-8"))
    for module, test in named:
        source = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
        assert f"def {test}(" in source or not test, f"{module}::{test}"
