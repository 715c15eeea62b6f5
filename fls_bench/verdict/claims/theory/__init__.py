"""Claims C5 and C6: OA falls and OF rises with alpha; the angle to the class mean goes as its root."""

from __future__ import annotations

from fls_bench.schema import ClaimResult, Sweep
from fls_bench.schema.theory import FlowFacts
from fls_bench.verdict.claims.theory.c5 import C5_REPORTED, C5_STATEMENT, judge_c5
from fls_bench.verdict.claims.theory.c6 import C6_REPORTED, C6_STATEMENT, judge_c6
from fls_bench.verdict.claims.theory.table import table_of


def judge_theory(sweep: Sweep, facts: FlowFacts) -> tuple[ClaimResult, ClaimResult]:
    """Judge C5 and C6 from one sweep over alpha.

    Args:
        sweep: With the measurements ``theory.*`` of ``fls_bench.flow_sweep``.
        facts: How the flow was followed, and on which data.

    Returns:
        (C5, C6). Both undecided where the flow still moved at the last halving, or where fewer than
        three scales or seeds can be judged.
    """
    table = table_of(sweep)
    data = (
        f"two Gaussian classes, d = {facts.input_dim}, n = {facts.n_train}, kappa = {facts.kappa:g}, "
        f"sigma = {facts.sigma:g} (Bayes error {facts.bayes_error:.2g}); two-layer ReLU net, "
        f"h = {facts.width}, to a mean logistic loss of {facts.target_loss:g}",
    )
    if table is None:
        why = "Fewer than three init scales, or three seeds, have runs that reached the target."
        shared = {"outcome": "undecided", "text": why, "data": data}
        return (
            ClaimResult.model_validate(
                {"claim": "C5", "statement": C5_STATEMENT, "reported": C5_REPORTED, **shared}
            ),
            ClaimResult.model_validate(
                {"claim": "C6", "statement": C6_STATEMENT, "reported": C6_REPORTED, **shared}
            ),
        )
    return judge_c5(table, facts, data), judge_c6(table, facts, data)
