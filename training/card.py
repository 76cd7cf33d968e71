"""The model card of a registered version: what it is, what it was measured at, what it is for.

Source: Mitchell et al. (2019), Model cards for model reporting.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from pitwise.registry.findings import Finding, describe

LONGEST = 5000
"""Characters that MLflow's table has room for in the description of a version."""
TEMPLATE = """\
# {{ name }} version {{ version }}: {{ fit.kind }}

| | |
|---|---|
| forecasts | the log return from the close to the close {{ fit.horizon }} \
session{{ "s" if fit.horizon > 1 }} later: `score`, which ranks the symbols of a session, and a \
logistic distribution (`log_return`, `scale`, `p_up`) |
{% if fit.params.members is defined -%}
| is | the mean of the scores of {{ fit.params.members | join(", ") }}, each in standard deviations |
{% endif -%}
| sees | {{ fit.features | length }} features over {{ fit.window }} sessions: \
{{ fit.features | join(", ") }} |
| fitted on | {{ fit.train_first_session }} to {{ fit.train_last_session }}, \
{{ "{:,}".format(fit.train_windows) }} windows of {{ symbols.train }} symbols |
| calibrated on | the sessions up to {{ fit.fitted_last_session }}, \
{{ "{:,}".format(fit.validation_windows) }} windows of {{ symbols.validation }} symbols; mean negative \
log-likelihood of their returns {{ "%.4f" | format(fit.best_validation_loss) }} nats |
| data set | rows `{{ fit.rows_sha256 }}`, as served `{{ fit.served_sha256 }}` |
| recipe | `{{ fit.recipe }}`\
{% for key, value in fit.params.items() %}, {{ key }} {{ value }}{% endfor %} |
| code | `{{ code }}` |
| file | SHA-256 `{{ fit.onnx_sha256 }}`; differs from the fitted model by \
{{ "%.1e" | format(fit.onnx_parity) }} at most |

## The gate

{% for sentence in verdict -%}
{{ sentence }}.
{% else -%}
Nothing was found.
{% endfor %}
## Measured

{% if walked -%}
Walk-forward of this recipe, refitted again and again, {{ walked.first_session }} to \
{{ walked.last_session }}; 95% intervals of the difference by blocks of sessions; {{ walked.trials }} \
recipes were tried on these dates:

| forecast | rank IC (t) | at the next open (t) | this one's rank IC less it |
|---|---|---|---|
{% for name in [fit.kind] + baselines -%}
| {{ name }} | {{ signed(walked[name].rank_ic_mean, walked[name].rank_ic_t) }} | \
{{ signed(walked[name].rank_ic_mean_open, walked[name].rank_ic_t_open) }} | {{ paired(name) }} |
{% endfor -%}
{% else -%}
The walk-forward has no forecasts of this recipe.
{% endif %}
Test dates of its run, {{ tested.first_session }} to {{ tested.last_session }}, \
{{ "{:,}".format(tested.n_predictions) }} forecasts:

| forecast | rank IC (t) | MAPE, % | Brier | direction |
|---|---|---|---|---|
{% for name in [fit.kind, "persistence", "drift", "always_up"] -%}
| {{ name }} | {{ signed(tested[name].rank_ic_mean, tested[name].rank_ic_t) }} | \
{{ plain(tested[name].mape) }} | {{ plain(tested[name].brier) }} | \
{{ plain(tested[name].direction_accuracy) }} |
{% endfor %}
## For what, and for what not

It ranks the symbols of one session against each other, after the close. What it is worth for the price \
of one stock, its MAPE says beside that of persistence, the last price. It knows nothing but the \
features above, and nothing of what happens within a session. Costs are not in these figures; \
`pitwise backtest` has them. It is no investment advice.
{% if survivorship %}
{{ survivorship[0] | upper }}{{ survivorship[1:] }}.
{% endif %}"""


def card(
    name: str,
    version: str,
    fit: dict[str, Any],
    code: str,
    symbols: Mapping[str, int],
    survivorship: str | None,
    evaluation: dict[str, Any],
    walked: dict[str, Any] | None,
    findings: Sequence[Finding],
) -> str:
    """The card as markdown, at most `LONGEST` characters.

    Args:
        name: of the registered model.
        fit: the version's `training.json`.
        code: commit that it was made by.
        symbols: how many there are in the data set's training and validation sessions.
        survivorship: what it leaves out, see `universe.survivorship`.
        evaluation, walked: reports of the stages; None where the walk-forward is of another recipe.
        findings: the gate's about this version.
    """
    ours = walked["paired"][fit["kind"]] if walked else {}

    def plain(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    def signed(mean: float | None, t: float | None) -> str:
        if mean is None:
            return "–"
        return f"{mean:+.4f}" + ("" if t is None else f" ({t:+.1f})")

    def paired(other: str) -> str:
        found = ours.get(other)
        if not found or found["ci95"] is None:
            return "–"
        return f"{found['difference']:+.4f} ({found['ci95'][0]:+.4f} to {found['ci95'][1]:+.4f})"

    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(TEMPLATE)
    text = template.render(
        name=name,
        version=version,
        fit=fit,
        code=code,
        symbols=symbols,
        survivorship=survivorship,
        tested=evaluation,
        walked=walked,
        baselines=[other for other in ours if walked and walked[other]["rank_ic_mean"] is not None],
        verdict=[describe(finding) for finding in findings],
        plain=plain,
        signed=signed,
        paired=paired,
    )
    return text if len(text) <= LONGEST else text[: LONGEST - 2] + "…\n"
