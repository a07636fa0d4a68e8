"""The regression gate: a candidate against a baseline under a policy."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sana_bench.analysis.compare import Selected, about, compare_variants
from sana_bench.analysis.compare_text import as_markdown, escape, metric_line
from sana_bench.analysis.comparison import Comparison, MetricComparison
from sana_bench.analysis.policy import DEFAULT_POLICY, Policy, Rule, load_policy
from sana_bench.analysis.runs import Target, select
from sana_bench.core.errors import IncomparableError, IncompleteError, RegressionError, SuiteError
from sana_bench.core.plain import plain
from sana_bench.core.samples import OVERALL
from sana_bench.core.text import escaped
from sana_bench.results.run_folder import DEFAULT_OUTPUT
from sana_bench.results.statistics import holm
from sana_reports.notebook import section

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Check", "GateResult", "evaluate", "gate", "junit_xml", "markdown"]

Status = Literal["pass", "regression", "too good", "cannot tell", "not comparable", "not measured"]
# Normal quantiles: an interval spans 2 * 1.96 standard errors, 80 % power at 5 % takes 1.96 + 0.84 of them.
_DETECTABLE_SHARE = (1.96 + 0.84) / (2 * 1.96)


@dataclass(frozen=True)
class Check:
    """One rule applied; `row` is None when neither side has the metric."""

    name: str
    status: Status
    message: str
    required: bool
    row: MetricComparison | None


@dataclass(frozen=True)
class GateResult:
    """The outcome of a gate; `comparison` is None when the candidate was incomplete.

    `exit_code` is that of the command line: 0 pass, 3 incomplete, 4 regression, 5 not comparable.
    """

    exit_code: int
    outcome: str
    checks: list[Check]
    comparison: Comparison | None

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the candidate; what the prompts are too few to tell does not."""
        return self.exit_code == 0

    def table(self) -> "pd.DataFrame":
        """One row a check: name, status, required, message."""
        import pandas as pd

        columns = ("name", "status", "required", "message")
        return pd.DataFrame(
            [[getattr(check, name) for name in columns] for check in self.checks], columns=columns
        )

    def to_dict(self) -> dict[str, Any]:
        """Outcome, exit code, checks and comparison as JSON holds them."""
        return {**plain(self), "passed": self.passed}

    def __str__(self) -> str:
        lines = [f"{check.name}: {check.status}: {check.message}" for check in self.checks]
        return "\n".join(escaped(line, "") for line in [*lines, f"gate: {self.outcome}"])

    def _repr_html_(self) -> str:
        return section([f"gate: {self.outcome}"], self.table())


def gate(
    candidate: Target,
    *,
    baseline: Target,
    policy: str | Path = DEFAULT_POLICY,
    output: str | Path = DEFAULT_OUTPUT,
) -> GateResult:
    """Hold a variant against a baseline, as `sana-bench gate` does.

    Args:
        candidate: a run of one variant, `(run, variant)`, or a name as on the command line: `RUN` or `RUN:VARIANT`.
        baseline: the name of a baseline of `output`, a baseline's file, or a run as `candidate` may be one.
        policy: name or file of what matters.
        output: folder of runs and of the result store.

    Raises:
        UsageError: a run, variant, baseline or policy that is not there, or a policy that names none of the metrics.
    """
    rules = load_policy(policy)
    if isinstance(baseline, str | Path) and not str(baseline).startswith("baseline:"):
        baseline = f"baseline:{baseline}"
    return evaluate(select(baseline, output), select(candidate, output), rules)


def evaluate(baseline: Selected, candidate: Selected, policy: Policy, *, seed: int = 0) -> GateResult:
    """Compare and judge. Raises `SuiteError` for a policy that names none of the measured metrics."""
    if not candidate[1].complete:
        return GateResult(IncompleteError.exit_code, "the candidate is incomplete", [], None)
    latency = policy.metrics.get("latency")
    margin = min(latency.worse_by, 0.99) if latency is not None else 0.02
    comparison = compare_variants(
        baseline,
        candidate,
        alpha=policy.alpha,
        seed=seed,
        minimum_latency_effect=margin,
        sizes=policy.sizes,
    )
    overall = [row for row in comparison.metrics if row.key == OVERALL and row.metric in policy.metrics]
    compared = [row for row in overall if row.effect is not None and row.p_value is not None]
    adjusted = holm([row.effect.p_value for row in compared if row.effect is not None])
    corrected = {id(row): p for row, p in zip(compared, adjusted, strict=True)}
    checks = []
    for name, rule in policy.metrics.items():
        rows = [row for row in overall if row.metric == name]
        if not rows:
            checks.append(Check(name, "not measured", "neither side has this metric", rule.required, None))
        checks += [_check(row, rule, corrected.get(id(row)), policy.alpha) for row in rows]
    if all(check.row is None for check in checks):
        raise SuiteError(f"the policy names none of the measured metrics: {', '.join(policy.metrics)}")
    return GateResult(*_outcome(checks), checks, comparison)


def _check(row: MetricComparison, rule: Rule, p_value: float | None, default_alpha: float) -> Check:
    name = "/".join(part for part in (row.benchmark, row.metric) if part)
    if row.effect is None or p_value is None:
        status: Status = "not measured" if row.verdict == "not measured" else "not comparable"
        return Check(name, status, row.reason, rule.required, row)
    effect, row = row.effect, replace(row, p_value=p_value)
    worse = effect.difference if not row.higher_is_better else -effect.difference
    significant = p_value < (rule.alpha or default_alpha)
    shown = f"changed by {effect.difference:+.4g}, p = {p_value:.3g} after Holm's correction"
    if significant and worse > rule.worse_by:
        return Check(
            name, "regression", f"{shown}; at most {rule.worse_by:g} worse is allowed", rule.required, row
        )
    if significant and rule.too_good_by is not None and -worse > rule.too_good_by:
        why = f"{shown}; more than {rule.too_good_by:g} better is suspicious"
        return Check(name, "too good", why, rule.required, row)
    detectable = row.detectable
    if detectable is None:
        detectable = (effect.high - effect.low) * _DETECTABLE_SHARE
    if not significant and (math.isnan(detectable) or detectable > rule.worse_by):
        why = f"{shown}; {_too_few_prompts(row, detectable, rule.worse_by)}"
        return Check(name, "cannot tell", why, rule.required, row)
    return Check(name, "pass", shown, rule.required, row)


def _too_few_prompts(row: MetricComparison, detectable: float, matters: float) -> str:
    if math.isnan(detectable):
        return f"these prompts are too few to show any change ({row.no_interval or 'no interval'})"
    least = f"these prompts show only changes of {detectable:.4g} or more, and {matters:g} already matters"
    if row.prompts_needed is None:
        return least
    return f"{least}: {about(row.prompts_needed)} prompts would show it"


def _outcome(checks: list[Check]) -> tuple[int, str]:
    failed = [check.name for check in checks if check.status in ("regression", "too good")]
    if failed:
        return RegressionError.exit_code, f"regression: {', '.join(failed)}"
    lacking = [c.name for c in checks if c.required and c.status in ("not comparable", "not measured")]
    if lacking or all(check.row is None or check.row.effect is None for check in checks):
        return IncomparableError.exit_code, f"not comparable: {', '.join(lacking) or 'every metric'}"
    unsure = [check.name for check in checks if check.status == "cannot tell"]
    return 0, "pass" + (f"; cannot tell: {', '.join(unsure)}" if unsure else "")


def junit_xml(result: GateResult) -> bytes:
    """Return JUnit XML: one test case a check; regressions fail, missing required metrics are errors."""
    suite = ElementTree.Element("testsuite", name="sana-bench gate")
    counts = {"failure": 0, "error": 0, "skipped": 0}
    checks = result.checks or [Check("completeness", "not measured", result.outcome, True, None)]
    for check in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname="sana-bench.gate", name=escaped(check.name)
        )
        kind = _junit_kind(check)
        if kind is not None:
            counts[kind] += 1
            ElementTree.SubElement(case, kind, message=escaped(f"{check.status}: {check.message}"))
    suite.set("tests", str(len(checks)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(counts[kind]))
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _junit_kind(check: Check) -> str | None:
    if check.status == "pass":
        return None
    if check.status in ("regression", "too good"):
        return "failure"
    return "error" if check.required and check.status != "cannot tell" else "skipped"


def markdown(result: GateResult) -> str:
    """Return a summary for a pull request or a job page."""
    lines = [f"# Regression gate: {escape(result.outcome)}", ""]
    if result.checks:
        lines += ["| metric | status | baseline | candidate | why |", "|---|---|---:|---:|---|"]
    for check in result.checks:
        values = metric_line(check.row)[1:3] if check.row is not None else ["-", "-"]
        cells = [check.name, check.status, *values, check.message]
        lines.append(f"| {' | '.join(map(escape, cells))} |")
    if result.comparison is not None:
        lines += ["", as_markdown(result.comparison)]
    return "\n".join(lines) + "\n"
