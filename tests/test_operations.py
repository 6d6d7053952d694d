"""Holds what docs/operations/ has, and how the bridge is deployed, to the code: every name, port, path and number."""

import ast
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge import admin, app, policy
from bridge.circuit_breaker import MOST_FAILURES
from bridge.display import LANDING_SECONDS
from bridge.inbox import DEAD_LETTERS, JOURNAL_ENTRIES, TICKETS_OF_A_CHANNEL, Backlog, Kind, Put
from bridge.metrics import Metrics
from bridge.models import Reaction
from bridge.policy import Silence
from bridge.settings import Role, Settings, load
from bridge.slack import chat as slack_chat
from bridge.slack import web_api
from bridge.slack.app import TAKE_IN_SECONDS
from bridge.slack.http import PATH
from bridge.watch import PATIENCE_SECONDS
from bridge.worker import LEAVE_SECONDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OPERATIONS = DOCS / "operations"
MANIFESTS = OPERATIONS / "kubernetes"
DEFAULTS = Settings.model_construct()
SETTINGS = {name.upper() for name in Settings.model_fields}
# What others than the bridge read: Python, and the images' own programs.
OTHERS = {"PATH", "PYTHONUNBUFFERED", "REDISCLI_AUTH"}


# What the code exports


def words(file: str, *, given_to: Mapping[str, int] | None = None, named: str = "", of: str = "") -> set[str]:
    """Give the constant words of a module: arguments of calls, by the callee's name and their position; what is
    assigned to the variable `named`; what the function `of` returns.
    """
    found: list[ast.expr] = []
    for node in ast.walk(ast.parse((ROOT / "bridge" / file).read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args) if name in (given_to or {}):
                found += args[(given_to or {})[name] :][:1]
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == named:
                found.append(value)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                found += [value for one, value in zip(names, values, strict=True) if ast.unparse(one) == named]
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name == of:
                found += [part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value]
    return {one.value for one in found if isinstance(one, ast.Constant) and isinstance(one.value, str)}


SETTLED = words("worker.py", named="result") | words("worker.py", of="_tell")
RESULTS: dict[str, set[str]] = {
    Kind.QUESTION: SETTLED | words("answer.py", given_to={"Done": 0, "_Ending": 0}),
    Kind.VOTE: SETTLED | words("feedback.py", given_to={"Done": 0}) | {*Reaction},
}
ENDINGS = words("answer.py", given_to={"_Ending": 0})
EVENTS = (
    {*Put, *Silence}
    | words("slack/app.py", given_to={"on_event": 0}, named="result", of="_emoji")
    | words("slack/read.py", given_to={"Ignored": 0})
    | words("slack/interactions.py", given_to={"Ignored": 0})
)
BUDGETS = words("answer.py", given_to={"turn": 0}) | words("display.py", given_to={"turn": 0})
ENDPOINTS = words("kapa/client.py", given_to={"_finished": 0, "_observe": 0})
KAPA_OUTCOMES = words("kapa/client.py", given_to={"_observe": 1}, of="_outcome")
METHODS = words("slack/chat.py", given_to={"_call": 0, "_shown": 0}) | {slack_chat.POST}
METHODS |= words("slack/app.py", given_to={"observed": 1})
SLACK_OUTCOMES = words("slack/web_api.py", named="outcome") | {*web_api.OUTCOMES.values()}
BACKLOG = Backlog(1, 1, 1, 1.0, 1.0)
# Every method of Metrics, with whatever it may be called with.
TOUCHES: dict[str, list[tuple[Any, ...]]] = {
    "build": [(role,) for role in Role],
    "event": [(result,) for result in EVENTS],
    "intake": [(1.0,)],
    "work": [(kind, result) for kind, results in RESULTS.items() for result in results],
    "running": [(kind, lambda: 1) for kind in Kind],
    "first_text": [(1.0,)],
    "answer": [(result, 1.0) for result in ENDINGS],
    "added": [(1.0,)],
    "budget_wait": [(budget, 1.0) for budget in BUDGETS],
    "kapa_call": [(endpoint, outcome, 1.0) for endpoint in ENDPOINTS for outcome in KAPA_OUTCOMES],
    "slack_call": [(method, outcome, 1.0) for method in METHODS for outcome in SLACK_OUTCOMES],
    "redis": [()],
    "dead_letters": [(1,)],
    "backlog": [(kind, BACKLOG) for kind in Kind],
}
# They are of Redis, and the same in every process.
SHARED = re.compile("bridge_(redis_takes_writes|dead_letters|inbox_.*)")


@cache
def touched() -> Metrics:
    """Give metrics of which every method was called."""
    metrics = Metrics()
    for method, calls in TOUCHES.items():
        for arguments in calls:
            getattr(metrics, method)(*arguments, **({"takes_writes": True} if method == "redis" else {}))
    return metrics


@cache
def exported() -> dict[str, dict[str, set[str]]]:
    """Give every name that can be asked for, and for each of its labels the values that there are."""
    names: dict[str, dict[str, set[str]]] = {}
    for sample in chain.from_iterable(family.samples for family in touched().registry.collect()):
        labels = names.setdefault(sample.name, {})
        for label, value in sample.labels.items():
            labels.setdefault(label, set()).add(value)
    return names


def test_every_method_is_touched() -> None:
    assert TOUCHES.keys() == {name for name, _ in inspect.getmembers(Metrics, inspect.isfunction) if name[0] != "_"}
    assert all(family.samples for family in touched().registry.collect())


def test_the_words_are_found_in_the_code() -> None:
    """Whoever writes the code otherwise learns here that the words have to be looked for otherwise."""
    assert RESULTS[Kind.QUESTION] >= {"answered", "helped", "refused", "again", "dead", "lost", "away"}
    assert RESULTS[Kind.VOTE] >= {"upvote", "downvote", "unchanged", "elsewhere", "no_answer", "unfinished", "lost"}
    assert {"answered", "helped", "refused", "failed"} == ENDINGS
    assert {"accepted", "duplicate", "unknown_thread", "no_vote", "malformed", "failed", "bot", "asked_why"} <= EVENTS
    assert {"kapa", "edits"} == BUDGETS
    assert {"integrations", "chat", "chat_stream", "feedback"} == ENDPOINTS
    assert {"ok", "rate_limited", "unavailable", "refused", "misconfigured", "thread_unknown"} == KAPA_OUTCOMES
    assert {
        "chat.postMessage",
        "chat.update",
        "chat.startStream",
        "assistant.threads.setStatus",
        "views.open",
    } <= METHODS
    assert {"ok", "busy", "unclear", "refused", "cancelled"} == SLACK_OUTCOMES


def test_the_table_in_the_documentation_has_every_metric_and_its_labels() -> None:
    rows = re.findall(r"^\| `(bridge_\w+)` \|([^|]*)\|", (DOCS / "operations.md").read_text("utf-8"), re.MULTILINE)
    told = {name: set(re.findall(r"\w+", labels)) for name, labels in rows}
    families = {
        family.name + ("_total" if family.type == "counter" else ""): set(family.samples[0].labels) - {"le"}
        for family in touched().registry.collect()
    }
    assert told == families


def table_row(beginning: str) -> str:
    """Give the row of a table in docs/operations.md that begins so."""
    found = [line for line in (DOCS / "operations.md").read_text("utf-8").splitlines() if line.startswith(beginning)]
    assert len(found) == 1, beginning
    return found[0]


def test_the_documentation_has_every_word_that_a_result_may_be() -> None:
    told = set(re.findall(r"`(\w+)`", table_row("| `bridge_work_total` |")))
    # A question that failed is given up, which counts as dead.
    assert told >= (RESULTS[Kind.QUESTION] | RESULTS[Kind.VOTE]) - {"failed"}
    told = set(re.findall(r"`(\w+)`", table_row("| `bridge_events_total` |")))
    assert told >= EVENTS


def test_the_documentation_has_every_event_that_the_log_warns_of() -> None:
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \|[^|]*\|[^|]*\|$", (DOCS / "operations.md").read_text("utf-8"), re.MULTILINE
    )
    told = {name for names in rows for name in re.findall(r"\w+", names)}
    files = [path.relative_to(ROOT / "bridge") for path in (ROOT / "bridge").rglob("*.py")]
    warned = {
        name
        for file in files
        if file.parts[0] != "playground"
        for name in words(str(file), given_to={"warning": 0, "error": 0, "exception": 0})
    }
    assert warned >= {"stream_refused", "redis_refuses_writes", "journey_failed"}
    assert warned - told == set()


# PromQL, as far as names are concerned

SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
KEYWORDS = {"and", "or", "unless", "bool", "offset"}
CALLED = KEYWORDS | {"absent", "count", "histogram_quantile", "increase", "max", "min", "rate", "sum", "vector"}
OF_PROMETHEUS = {"job", "instance", "namespace"}
OTHER_METRICS: dict[str, dict[str, set[str]]] = {"up": {}}


def plain(expr: str) -> str:
    """Give an expression without what Grafana puts in."""
    return expr.replace("$__rate_interval", "5m").replace("$__range", "6h")


def selected(expr: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Give the metrics of an expression, each with its matchers."""
    found = [(match[1], MATCHER.findall(match[2])) for match in SELECTOR.finditer(expr)]
    bare = re.sub(r'\[[^\]]*\]|"[^"]*"', " ", GROUPING.sub(" ", SELECTOR.sub(" ", expr)))
    names = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(?![\w:])(?!\s*\()", bare)
    return found + [(name, []) for name in names if name not in KEYWORDS]


def problems(expr: str, recorded: Iterable[str] = ()) -> list[str]:
    """Say what an expression names that is not there, or asks in a way that cannot be right."""
    known = exported() | OTHER_METRICS | {name: {} for name in recorded}
    bare = re.sub(r'"[^"]*"', '""', expr)
    calls = GROUPING.sub(" ", SELECTOR.sub(lambda match: f"{match[1]} ", bare))
    grouped = set(re.findall(r"\w+", " ".join(GROUPING.findall(bare))))
    labels = OF_PROMETHEUS.union(*(known.get(name, {}) for name, _ in selected(expr)))
    found = [f"no function: {name}" for name in re.findall(r"([a-zA-Z_]\w*)\s*\(", calls) if name not in CALLED]
    found += [f"no label: {label}" for label in sorted(grouped - labels)]
    for name, matchers in selected(expr):
        found += _not_there(name, matchers, known)
    if "histogram_quantile" in calls and "le" not in grouped:
        found.append("a quantile without le")
    for aggregation, name in re.findall(r"(\w+)\s*\(\s*(bridge_\w+)", calls):
        if SHARED.fullmatch(name) and aggregation not in {"max", "min"}:
            found.append(f"{aggregation} of what is the same everywhere: {name}")
    return found


def _not_there(
    name: str, matchers: Iterable[tuple[str, str, str]], known: Mapping[str, Mapping[str, set[str]]]
) -> Iterator[str]:
    if name not in known:
        yield f"no metric: {name}"
        return
    for label, operator, value in matchers:
        if label in OF_PROMETHEUS:
            continue
        there = known[name].get(label)
        if there is None:
            yield f"no label: {label}"
            continue
        for one in value.split("|") if "~" in operator else [value]:
            if one not in there:
                yield f"no {label}: {one}"


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("sum(rate(bridge_event_total[5m]))", "no metric: bridge_event_total"),
        ("sum(rate(bridge_events[5m]))", "no metric: bridge_events"),
        ("max(bridge_inbox_untaken)", "no metric: bridge_inbox_untaken"),
        ("bridge_answer_seconds > 3", "no metric: bridge_answer_seconds"),
        ('sum(rate(bridge_events_total{results="failed"}[5m]))', "no label: results"),
        ('sum(rate(bridge_events_total{result="fail"}[5m]))', "no result: fail"),
        ('bridge_events_total{result!="fail"}', "no result: fail"),
        ('bridge_work_total{kind="vote", result=~"upvote|downvoted"}', "no result: downvoted"),
        ('bridge_work_total{kind="votes"}', "no kind: votes"),
        ('bridge_kapa_call_seconds_count{outcome="busy"}', "no outcome: busy"),
        ('bridge_slack_call_seconds_count{method="chat.post"}', "no method: chat.post"),
        ('absent(bridge_build_info{role=~"all|workers"})', "no role: workers"),
        ('bridge_first_text_seconds_bucket{le="21.0"}', "no le: 21.0"),
        ("sum by (outcomes) (rate(bridge_kapa_call_seconds_sum[5m]))", "no label: outcomes"),
        ("sum by (method) (rate(bridge_kapa_call_seconds_sum[5m]))", "no label: method"),
        ("max(bridge_dead_letters) unless on (jobs) bridge_dead_letters offset 1h", "no label: jobs"),
        ("increased(bridge_events_total[5m])", "no function: increased"),
        ("histogram_quantile(0.5, sum(rate(bridge_added_seconds_bucket[5m])))", "a quantile without le"),
        ("sum by (kind) (bridge_inbox_unfinished)", "sum of what is the same everywhere: bridge_inbox_unfinished"),
        ("bridge:untaken:seconds > 3", "no metric: bridge:untaken:seconds"),
    ],
)
def test_a_name_that_is_wrong_is_found(expr: str, problem: str) -> None:
    assert problems(expr) == [problem]


@pytest.mark.parametrize(
    "expr",
    [
        'sum by (job, le) (rate(bridge_added_seconds_bucket{job="a"}[5m])) or vector(0)',
        'up{job="bridge"} == 0',
        "max by (kind) (bridge_inbox_waiting offset 1w) > bool 3",
        'bridge_build_info{role=~"all|ingress", instance=~".*"} unless on (job) bridge_dead_letters offset 1h',
    ],
)
def test_a_name_that_is_right_is_no_problem(expr: str) -> None:
    assert problems(expr) == []


def mutations(expr: str) -> Iterator[str]:
    """Give an expression with each of its names and values misspelt, one at a time."""
    for match in re.finditer(r"bridge[_:][\w:]+", expr):
        yield f"{expr[: match.end() - 1]}{expr[match.end() :]}"
    for match in MATCHER.finditer(expr):
        if match[1] not in OF_PROMETHEUS:
            yield f"{expr[: match.end(3) - 1]}{expr[match.end(3) :]}"
            yield f"{expr[: match.end(1) - 1]}{expr[match.end(1) :]}"


# The dashboard


DASHBOARD: dict[str, Any] = json.loads((OPERATIONS / "dashboard.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
BY_TITLE = {f"{number}: {panel['title']}": panel for number, panel in enumerate(PANELS)}
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert re.fullmatch("[a-z-]{8,40}", DASHBOARD["uid"])
    # Grafana gives it one.
    assert DASHBOARD["id"] is None
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for name in ("job", "instance"):
        [metric] = re.findall(r"label_values\((\w+)", variables[name]["query"]["query"])
        assert metric in exported()
        assert variables[name]["datasource"]["uid"] == "${datasource}"
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(DASHBOARD)))
    assert used == variables.keys()


def test_the_panels_stand_beside_each_other() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        assert one["x"] + one["w"] <= 24
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)


@pytest.mark.parametrize("title", BY_TITLE)
def test_a_panel_explains_itself(title: str) -> None:
    panel = BY_TITLE[title]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    words_of_warning = ("Bad:", "bad when", "again and again it means")
    assert any(word in panel["description"] for word in words_of_warning), panel["description"]


@pytest.mark.parametrize("expr", QUERIES)
def test_a_query_of_the_dashboard_names_what_is_there(expr: str) -> None:
    assert problems(plain(expr)) == []
    for _, matchers in selected(plain(expr)):
        assert ("job", "=", "$job") in matchers
        assert ("instance", "=~", "$instance") in matchers
    assert all(problems(plain(mutation)) for mutation in mutations(expr))


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for expr in QUERIES for name, _ in selected(plain(expr))}
    for family in touched().registry.collect():
        assert {sample.name for sample in family.samples} & shown, family.name


# The alerts


GROUPS: list[dict[str, Any]] = yaml.safe_load((OPERATIONS / "alerts.yml").read_text("utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
SCRAPES: list[dict[str, Any]] = yaml.safe_load((OPERATIONS / "prometheus.yml").read_text("utf-8"))["scrape_configs"]


@pytest.mark.parametrize("name", [*RECORDED, *ALERTS])
def test_a_rule_names_what_is_there(name: str) -> None:
    expr = (RECORDED | ALERTS)[name]["expr"]
    assert problems(expr, RECORDED) == []
    assert all(problems(mutation, RECORDED) for mutation in mutations(expr))
    # A second bridge of another namespace is another bridge.
    assert "by (job" not in expr


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert page == "docs/operations.md"
    assert anchor in anchors(ROOT / page)


def test_each_rule_has_a_name_of_its_own_and_its_test() -> None:
    assert len(RECORDED) + len(ALERTS) == len(RULES)
    tried = (OPERATIONS / "alerts.test.yml").read_text("utf-8")
    for name in ALERTS:
        assert f'alertname="{name}", alertstate="firing"' in tried, f"{name} is never seen to fire"
    series = re.findall(r"\{series: '(\S+?)\{(.*)\}', values", tried)
    assert [one for one in series if problems(f"{one[0]}{{{one[1]}}}") not in ([], ["no version: 1"])] == []


def test_the_alerts_go_by_the_job_of_the_scrape() -> None:
    jobs = {
        value
        for rule in RULES
        for _, matchers in selected(rule["expr"])
        for label, _, value in matchers
        if label == "job"
    }
    assert {scrape["job_name"] for scrape in SCRAPES} == jobs
    [target] = SCRAPES[0]["static_configs"][0]["targets"]
    assert target == f"{DEFAULTS.bridge_admin_host}:{DEFAULTS.bridge_admin_port}"


def last_number(alert: str) -> float:
    """Give the number that an alert's expression ends with."""
    return float(re.findall(r"> ([\d.]+)\s*$", ALERTS[alert]["expr"])[0])


def test_thresholds_are_those_of_the_code() -> None:
    assert last_number("BridgeDeadLettersFull") == 0.9 * DEAD_LETTERS
    assert f"{DEAD_LETTERS:,}" in ALERTS["BridgeDeadLettersFull"]["annotations"]["description"]
    # One question that Kapa fails at opens the circuit, and is worth a look.
    assert last_number("BridgeKapaFailing") == MOST_FAILURES - 1
    # One that waits as long as it may, before each of its tries, is no alert.
    longest = len(policy.QUESTION_WAITS) * policy.LONGEST_WAIT_SECONDS
    assert last_number("BridgeQuestionTooOld") > longest
    # Autoscaling comes first.
    assert last_number("BridgeWorkersMissing") > float(AUTOSCALER["spec"]["metrics"][0]["external"]["target"]["value"])


def test_thresholds_of_durations_are_bounds_of_buckets() -> None:
    """Between two bounds a quantile is a guess."""
    found = {}
    for name, alert in ALERTS.items():
        for metric, number in re.findall(r"(bridge_\w+_bucket).*?\)\) > ([\d.]+)", alert["expr"], re.DOTALL):
            found[name] = float(number)
            assert float(number) in map(float, exported()[metric]["le"])
    assert len(found) == sum("histogram_quantile" in alert["expr"] for alert in ALERTS.values())
    assert found["BridgeIntakeSlow"] < TAKE_IN_SECONDS


# How it is deployed


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
UNIT = (OPERATIONS / "bridge.service").read_text("utf-8")
[UID] = map(int, re.findall(r"--uid (\d+)", DOCKERFILE))
FILES = {path.name: [*yaml.safe_load_all(path.read_text("utf-8"))] for path in sorted(MANIFESTS.glob("*.yaml"))}
# What is no object of Kubernetes'.
PARTS = {"kustomization.yaml", "prometheus-adapter.yaml"}
OBJECTS: list[dict[str, Any]] = [one for name, found in FILES.items() if name not in PARTS for one in found]
PODS: dict[str, dict[str, Any]] = {
    one["metadata"]["name"]: one["spec"]["template"] for one in OBJECTS if one["kind"] in {"Deployment", "StatefulSet"}
}
BRIDGES = {name: pod for name, pod in PODS.items() if name != "bridge-redis"}
[AUTOSCALER] = FILES["autoscaling.yaml"]
[KEDA] = FILES["keda.yaml"]
[CONFIG] = FILES["config.yaml"]


def kinds(kind: str) -> list[dict[str, Any]]:
    """Give all objects of a kind."""
    return [one for one in OBJECTS if one["kind"] == kind]


def container(name: str) -> dict[str, Any]:
    """Give the one container of a pod."""
    [found] = PODS[name]["spec"]["containers"]
    return dict(found)


def seconds(text: str) -> float:
    """Read a number of seconds."""
    return float(text.removesuffix("s"))


def role_of(name: str) -> Role:
    """Give the role that a pod of the bridge runs in."""
    command, option, role = container(name)["args"]
    assert (command, option) == ("run", "--role")
    return Role(role)


def test_every_file_is_parsed_and_used() -> None:
    [kustomization] = FILES["kustomization.yaml"]
    written = (MANIFESTS / "kustomization.yaml").read_text("utf-8")
    assert all((MANIFESTS / name).is_file() for name in kustomization["resources"])
    optional = {"kustomization.yaml", "secret.example.yaml", "prometheus-adapter.yaml"}
    assert FILES.keys() - optional == {name for name in re.findall(r"[\w.-]+\.yaml", written) if name in FILES}
    told = (DOCS / "operations.md").read_text("utf-8")
    assert [name for name in FILES if f"`{name}`" not in told] == []
    assert all("namespace" not in one["metadata"] for one in OBJECTS)
    assert len({(one["kind"], one["metadata"]["name"]) for one in OBJECTS}) == len(OBJECTS)


def test_the_patch_for_http_mode_fits_the_ingress() -> None:
    """It is a comment, for whoever takes HTTP mode."""
    written = (MANIFESTS / "kustomization.yaml").read_text("utf-8")
    [commented] = re.findall(r"^# patches:\n(?:# .*\n)+", written, re.MULTILINE)
    [patch] = yaml.safe_load(re.sub(r"^# ", "", commented, flags=re.MULTILINE))["patches"]
    [change] = yaml.safe_load(patch["patch"])
    place: Any = next(
        one for one in kinds(patch["target"]["kind"]) if one["metadata"]["name"] == patch["target"]["name"]
    )
    for step in change["path"].strip("/").split("/"):
        place = place[int(step)] if isinstance(place, list) else place[step]
    assert change["op"] == "replace"
    assert change["value"] == f"{place}?without=slack" == "/readyz?without=slack"


def named_variables() -> dict[str, set[str]]:
    """Give the environment variables that each file sets or names."""
    found = {
        "docker-compose.yml": set(
            chain.from_iterable(one.get("environment", {}) for one in COMPOSE["services"].values())
        ),
        "Dockerfile": set(re.findall(r"^(?:ENV| {4})\s*(\w+)=", DOCKERFILE, re.MULTILINE)),
        "bridge.service": set(re.findall(r"^Environment=(\w+)=", UNIT, re.MULTILINE)),
        "config.yaml": set(CONFIG["data"]),
        "secret.example.yaml": set(FILES["secret.example.yaml"][0]["stringData"]),
        **{f"the pod {name}": {one["name"] for one in container(name)["env"]} for name in PODS},
    }
    texts = [*OPERATIONS.rglob("*.*"), DOCS / "scaling.md", ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
    for path in texts:
        named = re.findall(r"\b(?:BRIDGE|KAPA|SLACK|REDIS)_[A-Z_]*[A-Z]\b", path.read_text("utf-8"))
        found.setdefault(path.name, set()).update(named)
    return found


@pytest.mark.parametrize("where", named_variables())
def test_every_variable_is_a_setting(where: str) -> None:
    assert named_variables()[where] - SETTINGS - OTHERS == set()


@pytest.mark.parametrize("name", BRIDGES)
def test_a_pod_has_the_settings_of_its_role_and_no_other_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container(name)["env"]}
    needed, any_of = app.required(role_of(name))
    wanted = {setting.upper() for setting in (*needed, *any_of)}
    assert given.keys() == wanted
    assert {ref["key"] for ref in given.values()} == wanted
    assert {setting for setting, ref in given.items() if ref.get("optional")} == {one.upper() for one in any_of}
    assert {ref["name"] for ref in given.values()} == {FILES["secret.example.yaml"][0]["metadata"]["name"]}
    assert container(name)["envFrom"] == [{"configMapRef": {"name": CONFIG["metadata"]["name"]}}]
    values = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1", "REDIS_URL": "redis://:x@bridge-redis:6379/0"}
    for setting in (*wanted, *CONFIG["data"]):
        monkeypatch.setenv(setting, CONFIG["data"].get(setting) or values.get(setting, "made-up"))
    settings = load(needed, any_of=any_of)
    assert settings.bridge_admin_host == settings.bridge_host == "0.0.0.0"  # noqa: S104 - in a pod of its own
    assert settings.kapa_requests_per_minute == DEFAULTS.kapa_requests_per_minute


def test_the_examples_of_secrets_have_no_values() -> None:
    for secret in kinds("Secret"):
        assert set(secret["stringData"].values()) == {""}
    settings, redis = kinds("Secret")
    assert set(settings["stringData"]) == {one["name"] for name in BRIDGES for one in container(name)["env"]}
    [auth] = container("bridge-redis")["env"]
    assert auth["valueFrom"]["secretKeyRef"] == {"name": redis["metadata"]["name"], "key": "password"}
    assert redis["stringData"].keys() == {"password"}
    assert f"$({auth['name']})" in container("bridge-redis")["args"]


def test_a_pod_listens_where_the_settings_say() -> None:
    ports = {name: {one["name"]: one["containerPort"] for one in container(name)["ports"]} for name in PODS}
    admin_port, events = DEFAULTS.bridge_admin_port, DEFAULTS.bridge_port
    assert ports == {
        "bridge-ingress": {"admin": admin_port, "events": events},
        "bridge-worker": {"admin": admin_port},
        "bridge-redis": {"redis": 6379},
    }
    assert {"BRIDGE_PORT", "BRIDGE_ADMIN_PORT"}.isdisjoint(CONFIG["data"])


@pytest.mark.parametrize("name", BRIDGES)
def test_probes_ask_what_the_admin_server_serves(name: str) -> None:
    served = {resource.canonical for resource in admin.routes({}, Metrics()).router.resources()}
    probes = {probe: container(name)[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: one["httpGet"]["path"] for probe, one in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {one["httpGet"]["path"] for one in probes.values()} < served
    assert {one["httpGet"]["port"] for one in probes.values()} == {"admin"}
    assert probes["readinessProbe"]["timeoutSeconds"] > PATIENCE_SECONDS + app.SLACK_PATIENCE_SECONDS
    [monitor] = kinds("PodMonitor")
    assert [one["path"] for one in monitor["spec"]["podMetricsEndpoints"]] == ["/metrics"]
    assert "/metrics" in served


@pytest.mark.parametrize("name", BRIDGES)
def test_a_pod_has_time_to_drain(name: str) -> None:
    command = container(name).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    assert command[0] == "sleep"
    needed = float(command[1]) + DEFAULTS.bridge_drain_seconds + LANDING_SECONDS + LEAVE_SECONDS
    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= needed
    assert (float(command[1]) > 0) == (role_of(name) is Role.INGRESS)


def test_everywhere_there_is_time_to_drain() -> None:
    needed = DEFAULTS.bridge_drain_seconds + LANDING_SECONDS + LEAVE_SECONDS
    assert all(seconds(COMPOSE["services"][name]["stop_grace_period"]) >= needed for name in ("ingress", "worker"))
    assert seconds(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)[0]) >= needed
    told = re.findall(r"--stop-timeout (\d+)", (DOCS / "operations.md").read_text("utf-8"))
    assert told
    assert all(seconds(one) >= needed for one in told)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_do_little(name: str) -> None:
    """It keeps to the strictest of Kubernetes' Pod Security Standards."""
    pod, main = PODS[name]["spec"], container(name)
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert main["resources"]["requests"].keys() == {"cpu", "memory"}
    assert main["resources"]["limits"].keys() == {"memory"}
    volumes = {volume["name"] for volume in pod.get("volumes", [])} or {"data"}
    assert {mount["name"] for mount in main["volumeMounts"]} == volumes


def test_the_image_is_the_same_everywhere() -> None:
    services = COMPOSE["services"]
    images = {services[name]["image"] for name in ("ingress", "worker")}
    assert {container(name)["image"] for name in BRIDGES} == images
    assert {one["name"] for one in FILES["kustomization.yaml"][0]["images"]} == images
    assert container("bridge-redis")["image"] == services["redis"]["image"]
    assert f"\nUSER {UID}\n" in DOCKERFILE
    for name in BRIDGES:
        context = PODS[name]["spec"]["securityContext"]
        assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {UID}
        paths = {mount["mountPath"] for mount in container(name)["volumeMounts"]}
        assert paths == {path.partition(":")[0] for path in services["worker"]["tmpfs"]}
        assert f"VOLUME {min(paths)}\n" in DOCKERFILE
    assert f"/data:uid={UID},mode=0700" in services["worker"]["tmpfs"]


def test_the_image_gets_what_it_is_built_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


def test_each_redis_keeps_every_write() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    arguments = container("bridge-redis")["args"]
    assert arguments[: len(command)] == command
    for words_of_it in (command, arguments):
        options = dict(zip(words_of_it[1::2], words_of_it[2::2], strict=True))
        assert options["--appendonly"] == "yes"
        assert options["--appendfsync"] == "always"
        assert options["--maxmemory-policy"] == "noeviction"
        assert options["--save"] == ""
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert options["--maxmemory"] == "640mb"
    # The rest is for the copy that rewrites its file.
    assert container("bridge-redis")["resources"]["limits"]["memory"] == "1Gi"
    assert COMPOSE["services"]["redis"]["healthcheck"]["test"][1:] == ["redis-cli", "-e", "ping"]
    [stateful] = kinds("StatefulSet")
    assert stateful["spec"]["replicas"] == 1
    assert stateful["spec"]["serviceName"] in {one["metadata"]["name"] for one in kinds("Service")}


def matches(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    """Say whether a selector of Kubernetes' means what has these labels."""
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in expressions)
    return wanted.items() <= labels.items() and all(labels.get(one["key"]) in one["values"] for one in expressions)


def meant(selector: Mapping[str, Any]) -> set[str]:
    """Name the pods that a selector means."""
    return {name for name, pod in PODS.items() if matches(pod["metadata"]["labels"], selector)}


def test_selectors_mean_the_pods_that_they_are_for() -> None:
    for one in (*kinds("Deployment"), *kinds("StatefulSet")):
        name = one["metadata"]["name"]
        assert meant(one["spec"]["selector"]) == {name}
        for spread in PODS[name]["spec"].get("topologySpreadConstraints", []):
            assert meant(spread["labelSelector"]) == {name}
    for one in kinds("PodDisruptionBudget"):
        assert meant(one["spec"]["selector"]) == {one["metadata"]["name"]}
    assert {one["metadata"]["name"] for one in kinds("PodDisruptionBudget")} == BRIDGES.keys()
    for one in kinds("Service"):
        assert meant({"matchLabels": one["spec"]["selector"]}) == {one["metadata"]["name"]}
    policies = {one["metadata"]["name"]: meant(one["spec"]["podSelector"]) for one in kinds("NetworkPolicy")}
    assert policies == {"bridge": {*BRIDGES}, "bridge-events": {"bridge-ingress"}, "bridge-redis": {"bridge-redis"}}
    [monitor] = kinds("PodMonitor")
    assert meant(monitor["spec"]["selector"]) == {*BRIDGES}
    job = {PODS[name]["metadata"]["labels"][monitor["spec"]["jobLabel"]] for name in BRIDGES}
    assert job == {scrape["job_name"] for scrape in SCRAPES}


def ports_of(pods: Iterable[str]) -> set[str]:
    """Name the ports that all of these pods have."""
    return set.intersection(*({port["name"] for port in container(name)["ports"]} for name in pods))


def test_ports_are_named_as_the_pods_name_them() -> None:
    for one in kinds("Service"):
        for port in one["spec"]["ports"]:
            assert port["targetPort"] in ports_of([one["metadata"]["name"]])
    for one in kinds("NetworkPolicy"):
        for rule in one["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= ports_of(meant(one["spec"]["podSelector"]))
    [monitor] = kinds("PodMonitor")
    assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports_of(BRIDGES)
    [bridge] = (one for one in kinds("NetworkPolicy") if one["metadata"]["name"] == "bridge")
    leaving = {port["port"] for rule in bridge["spec"]["egress"] for port in rule["ports"]}
    assert leaving >= {53, 443, container("bridge-redis")["ports"][0]["containerPort"]}


def test_slack_posts_to_the_path_that_is_served() -> None:
    [ingress] = kinds("Ingress")
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["path"] == PATH
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    [service] = (one for one in kinds("Service") if one["metadata"]["name"] == path["backend"]["service"]["name"])
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


def test_replicas_are_enough_and_not_too_many() -> None:
    for deployment in kinds("Deployment"):
        assert deployment["spec"]["replicas"] >= 2
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    [ingress] = (one for one in kinds("Deployment") if role_of(one["metadata"]["name"]) is Role.INGRESS)
    # Slack allows an app ten connections (https://docs.slack.dev/apis/events-api/using-socket-mode).
    assert ingress["spec"]["replicas"] + ingress["spec"]["strategy"]["rollingUpdate"]["maxSurge"] <= 10


def test_autoscaling_is_of_the_workers_by_what_the_rules_record() -> None:
    [worker] = (one for one in kinds("Deployment") if role_of(one["metadata"]["name"]) is Role.WORKER)
    target = {"apiVersion": worker["apiVersion"], "kind": "Deployment", "name": worker["metadata"]["name"]}
    assert AUTOSCALER["spec"]["scaleTargetRef"] == KEDA["spec"]["scaleTargetRef"] == target
    [metric] = AUTOSCALER["spec"]["metrics"]
    [rule] = FILES["prometheus-adapter.yaml"][0]["externalRules"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    assert {name for name, _ in selected(rule["seriesQuery"])} == set(RECORDED)
    [trigger] = KEDA["spec"]["triggers"]
    assert problems(trigger["metadata"]["query"], RECORDED) == []
    assert {name for name, _ in selected(trigger["metadata"]["query"])} == set(RECORDED)
    assert trigger["metadata"]["threshold"] == metric["external"]["target"]["value"]
    assert trigger["metricType"] == metric["external"]["target"]["type"]
    spec = AUTOSCALER["spec"]
    assert (KEDA["spec"]["minReplicaCount"], KEDA["spec"]["maxReplicaCount"]) == (
        spec["minReplicas"],
        spec["maxReplicas"],
    )
    assert KEDA["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == spec["behavior"]
    assert spec["minReplicas"] == worker["spec"]["replicas"]


def test_compose_runs_an_ingress_and_some_workers() -> None:
    services = COMPOSE["services"]
    for name in ("ingress", "worker"):
        assert services[name]["command"] == ["run", "--role", Role(name)]
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    assert services["worker"]["deploy"]["replicas"] >= 2
    assert services["ingress"]["ports"] == [f"127.0.0.1:{DEFAULTS.bridge_port}:{DEFAULTS.bridge_port}"]


def test_the_unit_keeps_to_what_the_bridge_promises() -> None:
    lines = UNIT.splitlines()
    for line in (
        "ExecStart=/opt/bridge/bin/bridge run",
        "KillMode=mixed",
        "Restart=on-failure",
        # Of bad settings.
        "RestartPreventExitStatus=2",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "PrivateTmp=yes",
        # For the embedded Redis' socket, and for the network.
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    ):
        assert line in lines
    [state] = re.findall(r"^StateDirectory=(.*)$", UNIT, re.MULTILINE)
    # All that may be written to under ProtectSystem=strict.
    assert f"Environment=BRIDGE_DATA_DIR=/var/lib/{state}" in lines
    assert f"WorkingDirectory=/var/lib/{state}" in lines
    told = (DOCS / "operations.md").read_text("utf-8")
    assert "(operations/bridge.service)" in told
    assert "[Service]" not in told


# The pages


def anchors(page: Path) -> set[str]:
    """Give the names under which a page's headings can be linked to."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["docs/operations.md", "docs/scaling.md", "docs/operations/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)\s]+)\)", (ROOT / page).read_text("utf-8"))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_folder_s_page_names_every_file() -> None:
    told = (OPERATIONS / "README.md").read_text("utf-8")
    assert [
        path.name for path in OPERATIONS.iterdir() if path.name != "README.md" and f"[{path.name}" not in told
    ] == []


SCALING = (DOCS / "scaling.md").read_text("utf-8")


def row(beginning: str, text: str = SCALING) -> list[str]:
    """Give the cells of the one row of a table that begins so."""
    [line] = [line for line in text.splitlines() if line.startswith(f"| {beginning}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_figures_that_follow_from_the_code_are_right() -> None:
    a_day, answer = 86_400, 30
    kapa = DEFAULTS.kapa_requests_per_minute * 1_440
    assert row("some 20 chat requests")[1].startswith(f"{kapa:,},")
    assert row("some 20 chat requests")[2] == f"{kapa // 10:,}"
    of_a_channel = a_day * TICKETS_OF_A_CHANNEL // answer
    assert row(f"{TICKETS_OF_A_CHANNEL} conversations")[1:] == [
        f"{of_a_channel:,} in that channel",
        f"{of_a_channel // 10:,} in that channel",
    ]
    of_a_worker = a_day * DEFAULTS.bridge_worker_concurrency // answer
    assert row(f"{DEFAULTS.bridge_worker_concurrency} conversations")[1:] == [
        f"{of_a_worker:,} a worker",
        f"{of_a_worker // 10:,} a worker",
    ]
    assert f"(the bridge takes {app.EDITS_PER_MINUTE}," in SCALING
    assert f"The bridge has {app.STREAMS_PER_MINUTE} places" in SCALING
    assert f"counts in {app.KAPA_WINDOW_SECONDS:.0f} seconds" in SCALING
    assert f"{DEAD_LETTERS:,} at most" in row("a dead letter")[0]
    assert f"{JOURNAL_ENTRIES:,} at most" in row("an entry of the journal")[0]


def test_the_table_of_loads_adds_up() -> None:
    loads = [int(cell.replace(",", "")) for cell in row("questions a day")]
    [bytes_each] = re.findall(r"^(\d+) bytes", row("a thread with one answer")[0])
    busiest = [a_day * 10 / 1_440 for a_day in loads]
    assert [float(cell) for cell in row("in the busiest minute")] == [
        round(one, 2 if one < 0.1 else 1 if one < 1 else None) for one in busiest
    ]
    assert [int(cell) for cell in row("answered at once then")] == [
        max(1, -(-one * 30 // 60)) for one in map(round, busiest)
    ]
    assert [int(cell) for cell in row("requests a minute at Kapa")] == [int(one) + 1 for one in busiest]
    units = {"MB": 1e6, "GB": 1e9}
    for a_day, cell in zip(loads, row("Redis' memory for threads"), strict=True):
        number, unit = cell.split()
        assert float(number) * units[unit] == pytest.approx(a_day * 90 * int(bytes_each), rel=0.02)
    assert int(DEFAULTS.bridge_thread_ttl_days) == 90
    for a_day, at_once, workers in zip(loads, row("answered at once then"), row("processes"), strict=True):
        if a_day >= 10_000:
            concurrency = int(row("`BRIDGE_WORKER_CONCURRENCY`")[loads.index(a_day)])
            assert workers.endswith(f"{-(-int(at_once) // concurrency) + 1} workers")
