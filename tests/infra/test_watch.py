"""The dashboard and the alerts ask for numbers that exist, and the alerts fire when they should and not before."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from beside import ROOT
from typer.testing import CliRunner

from difffusr.pipeline.commands.cli import app
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.watch.metrics import METRICS

INFRA = ROOT / "infra"
PROMETHEUS = INFRA / "prometheus"
README = (INFRA / "README.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((INFRA / "grafana" / "difffusr.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (Debian: apt-get install prometheus)"
)


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def questions() -> list[tuple[str, str]]:
    """Where each expression of PromQL stands, and the expression."""
    asked = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    asked += [(rule["alert"], rule["expr"]) for rule in RULES]
    return asked


def metrics_in(expression: str) -> set[str]:
    """The names of metrics: words outside braces and quotes that functions, labels and clauses are not."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\b(by|on|without|ignoring)\s*\([^)]*\)", " ", expression)
    return {word for word in re.findall(r"\b[a-z][a-zA-Z0-9_:]*\b(?!\s*\()", bare) if "_" in word}


def defined_by_ray(name: str) -> bool:
    """Whether Ray has a metric of this name: in what its nodes report, or in the dashboards it ships."""
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    modules = Path(found.origin).parent / "dashboard" / "modules"
    reported = (modules / "reporter" / "reporter_agent.py").read_text()
    shown = (modules / "metrics" / "dashboards" / "default_dashboard_panels.py").read_text()
    return f'"{name.removeprefix("ray_")}"' in reported or re.search(rf"\b{name}\b", shown) is not None


OURS = {name for metric in METRICS for name in metric.exported}


@pytest.mark.parametrize(("where", "expression"), questions())
def test_every_metric_that_is_asked_for_exists(where, expression):
    names = metrics_in(expression)
    assert names
    for name in names:
        if "difffusr" in name:
            assert name in OURS, f"{where}: telemetry has no {name}"
        else:
            assert name.startswith(("ray_", "node_")), f"{where}: {name}"
            assert defined_by_ray(name), f"{where}: Ray has no {name}"


def test_a_metric_that_does_not_exist_would_be_noticed():
    assert metrics_in('sum by (stage) (rate(ray_difffusr_gone_total{run=~"$run"}[5m]))') == {"ray_difffusr_gone_total"}
    assert "ray_difffusr_gone_total" not in OURS
    assert not defined_by_ray("ray_node_that_is_not")


def test_the_dashboard_shows_every_metric():
    asked = {name for panel in panels() for target in panel["targets"] for name in metrics_in(target["expr"])}
    for metric in METRICS:
        assert asked & metric.exported, metric.name


# ---- the dashboard --------------------------------------------------------------------------------------------------


def test_the_dashboard_is_of_a_schema_that_grafana_loads():
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["uid"] == "difffusr"
    assert "id" not in DASHBOARD  # Grafana gives it one of its own
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "run", "period"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"


def test_every_panel_asks_the_chosen_data_source():
    places = [*panels(), *(target for panel in panels() for target in panel["targets"])]
    places += [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert {json.dumps(place["datasource"], sort_keys=True) for place in places} == {
        '{"type": "prometheus", "uid": "${datasource}"}'
    }


def test_what_a_run_tells_is_asked_of_the_chosen_run_and_period():
    for panel in panels():
        for target in panel["targets"]:
            for braces in re.findall(r"ray_difffusr_\w+(\{[^}]*\})?", target["expr"]):
                assert braces == '{run=~"$run", period=~"$period"}', panel["title"]


def test_panels_have_numbers_titles_units_and_words_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


# ---- the alerts -----------------------------------------------------------------------------------------------------


def anchors(markdown: str) -> set[str]:
    """The places of a page that a link can name, as they are made of its headings."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_what_and_what_to_do(rule):
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, place = rule["annotations"]["runbook_url"].partition("#")
    assert page == "infra/README.md"
    assert place in anchors(README)


def promtool(*words: str | Path) -> None:
    ran = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_prometheus_takes_its_configuration_and_the_rules():
    promtool("check", "config", PROMETHEUS / "prometheus.yaml")
    promtool("check", "rules", PROMETHEUS / "alerts.yaml")


@needs_promtool
def test_prometheus_takes_its_configuration_for_kubernetes(tmp_path):
    """Debian's Prometheus knows no Kubernetes: pods are found in a file instead, all else stays."""
    config = yaml.safe_load((PROMETHEUS / "kubernetes.yaml").read_text())
    for scraped in config["scrape_configs"]:
        assert scraped.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        scraped["file_sd_configs"] = [{"files": ["pods.json"]}]
    (tmp_path / "kubernetes.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(PROMETHEUS / "alerts.yaml", tmp_path)
    promtool("check", "config", tmp_path / "kubernetes.yaml")


def test_in_kubernetes_every_pod_of_the_cluster_is_asked_once():
    cluster = yaml.safe_load((INFRA / "kuberay" / "base" / "raycluster.yaml").read_text())["spec"]
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    (scraped,) = yaml.safe_load((PROMETHEUS / "kubernetes.yaml").read_text())["scrape_configs"]
    wanted = {
        rule["source_labels"][0].removeprefix("__meta_kubernetes_pod_"): rule["regex"]
        for rule in scraped["relabel_configs"]
        if rule.get("action") == "keep"
    }
    port = wanted.pop("container_port_name")
    for pod in pods:
        assert [one["name"] for one in pod["spec"]["containers"][0]["ports"]].count(port) == 1
        for kind in ("label", "annotation"):
            said = {re.sub(r"\W", "_", f"{kind}_{k}"): v for k, v in pod["metadata"][f"{kind}s"].items()}
            asked = {name: value for name, value in wanted.items() if name.startswith(kind)}
            assert asked
            assert asked.items() <= said.items()


@needs_promtool
def test_every_expression_of_the_dashboard_is_promql(tmp_path):
    rules = [
        {"record": f"panel:{i}", "expr": expression.replace("$__rate_interval", "5m")}
        for i, (_, expression) in enumerate(questions())
    ]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "panels.yaml")


#: What Prometheus sees of a run in 30 minutes, a sample a minute: by series, values in promtool's notation.
RUN = 'run="june", period="2024-06"'
WELL = {
    f"ray_difffusr_chips_planned{{{RUN}}}": "10000x30",
    f"ray_difffusr_chips_done{{{RUN}}}": "0+10x30",
    f"ray_difffusr_stalled{{{RUN}}}": "5x30",
    f"ray_difffusr_lease_age_seconds{{{RUN}}}": "4x30",
    f'ray_difffusr_chips_failed_total{{{RUN}, reason="crs"}}': "0+1x30",
    f'ray_difffusr_actor_restarts_total{{{RUN}, cause="death"}}': "1x30",
    'ray_object_store_memory{Location="SPILLED"}': "0x30",
    'ray_node_disk_utilization_percentage{ip="10.0.0.1"}': "60x30",
}
OF_THE_RUN = {"run": "june", "period": "2024-06"}


@pytest.mark.parametrize(
    ("alert", "happens", "labels"),
    [
        ("DifffusrNoProgress", {f"ray_difffusr_stalled{{{RUN}}}": "0+60x60"}, OF_THE_RUN),
        (
            "DifffusrChipsFailing",
            {f'ray_difffusr_chips_failed_total{{{RUN}, reason="{r}"}}': "0+3x30" for r in ("timeout", "crs")},
            OF_THE_RUN,
        ),
        (
            "DifffusrActorRestarting",
            {f'ray_difffusr_actor_restarts_total{{{RUN}, cause="death"}}': "1x10 2+1x20"},
            {**OF_THE_RUN, "cause": "death"},
        ),
        ("DifffusrLeaseLost", {f"ray_difffusr_lease_age_seconds{{{RUN}}}": "4x25 60 120 180 240 300"}, OF_THE_RUN),
        (
            "DifffusrDriverGone",
            {series: f"{values.split('x')[0]}x20 stale" for series, values in WELL.items()},
            OF_THE_RUN,
        ),
        ("DifffusrRunFinished", {f"ray_difffusr_publish_total{{{RUN}}}": "_x27 1x3"}, OF_THE_RUN),
        ("DifffusrRunFinished", {f"ray_difffusr_publish_total{{{RUN}}}": "1x27 2x3"}, OF_THE_RUN),
        ("DifffusrObjectStoreSpilling", {'ray_object_store_memory{Location="SPILLED"}': "0x15 2e9x15"}, {}),
        (
            "DifffusrDiskNearlyFull",
            {'ray_node_disk_utilization_percentage{ip="10.0.0.1"}': "60+2x30"},
            {"ip": "10.0.0.1"},
        ),
    ],
)
@needs_promtool
def test_an_alert_fires_when_it_should_and_no_other_does(tmp_path, alert, happens, labels):
    at = "40m" if alert == "DifffusrNoProgress" else "30m"
    series = WELL | happens
    if at == "40m":
        series |= {name: values.replace("x30", "x60") for name, values in series.items()}
    check_alerts(tmp_path, series, at, {alert: labels})


@needs_promtool
def test_nothing_fires_while_a_run_goes_well(tmp_path):
    check_alerts(tmp_path, WELL, "29m", {})


@needs_promtool
def test_a_driver_that_published_is_not_missed(tmp_path):
    ended = {series: f"{values.split('x')[0]}x20 stale" for series, values in WELL.items()}
    ended[f"ray_difffusr_publish_total{{{RUN}}}"] = "_x5 1x25"
    check_alerts(tmp_path, ended, "30m", {})


def check_alerts(folder: Path, series: dict[str, str], at: str, expected: dict[str, dict[str, str]]) -> None:
    """Let promtool play these series and compare which alerts fire at a time, with which labels."""
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
    cases = [
        {
            "eval_time": at,
            "alertname": alert,
            "exp_alerts": [{"exp_labels": {**expected[alert], "severity": severity[alert]}}]
            if alert in expected
            else [],
        }
        for alert in severity
    ]
    # promtool compares annotations too: the texts are left out of the copy that it plays.
    rules = [{**rule, "annotations": {}} for rule in RULES]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    played = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": cases,
            }
        ],
    }
    (folder / "played.yaml").write_text(yaml.safe_dump(played))
    promtool("test", "rules", folder / "played.yaml")


# ---- the runbook ----------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    """The indented lines of the runbook that are typed."""
    typed = (
        "difffusr ",
        "docker ",
        "kubectl ",
        "ray ",
        "RAY_",
        "sbatch ",
        "scancel ",
        "promtool ",
        "prometheus ",
        "(printf",
    )
    return [line.strip() for line in README.splitlines() if line.startswith("    ") and line.strip().startswith(typed)]


def test_what_the_runbook_names_is_there():
    assert len(commands()) > 15
    named = {path for line in commands() for path in re.findall(r"\binfra/[\w./-]+", line)}
    named |= {f"infra/{link}" for link in re.findall(r"\]\((?!http)([^)#]+)\)", README)}
    assert {"infra/Dockerfile", "infra/kuberay/overlays/aws-monthly", "infra/slurm/difffusr.sbatch"} <= named
    for path in named:
        assert (INFRA.parent / path).exists(), path


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("difffusr ")])
def test_the_runbook_s_commands_are_understood(line):
    """Each is called; there is no such file, which is the first thing that it can complain of."""
    ran = CliRunner().invoke(app, [*shlex.split(line, comments=True)[1:]])
    assert isinstance(ran.exception, ConfigError), ran.output
    assert "run.yaml: cannot be read" in str(ran.exception)


def test_the_rules_become_a_prometheus_rule():
    (line,) = [line for line in commands() if line.startswith("(printf")]
    made = subprocess.run(
        ["sh", "-c", line.removesuffix(" | kubectl apply -f -")], cwd=INFRA.parent, capture_output=True, text=True
    )
    rule = yaml.safe_load(made.stdout)
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())
