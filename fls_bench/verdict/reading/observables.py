"""What the columns of a net say, made comparable between tasks and nets: logarithms and differences.

Every observable says what it needs, so that there is a set for each kind of evidence, and how it is
called before people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fls_bench.schema import Evidence
from fls_bench.verdict.reading.columns import FACTS

Values = npt.NDArray[np.float64]
Columns = Mapping[str, Values]
"""Column -> ``[R]`` numbers, NaN where nothing was measured."""

EVIDENCE: tuple[Evidence, ...] = ("T1", "T1-train", "T2", "T2-train")

SMALL = 1e-4


@dataclass(frozen=True)
class Observable:
    """One number that the reading rests on.

    Attributes:
        name: As in the stored model.
        words: What it is, for a person.
        compute: Columns -> ``[R]``; NaN where a column it needs is.
        init: Whether it needs the initial weights.
        test: Whether it needs test points.
        sources: The columns that it comes from.
        lacking: Columns -> ``[R]`` whether a net can't have it by construction; None: every net can.
    """

    name: str
    words: str
    compute: Callable[[Columns], Values]
    init: bool
    test: bool
    sources: tuple[str, ...]
    lacking: Callable[[Columns], npt.NDArray[np.bool_]] | None = None

    @property
    def of_setup(self) -> bool:
        """Whether it is a fact of the setup and no measurement."""
        return set(self.sources) <= set(FACTS)


def available(evidence: Evidence) -> tuple[Observable, ...]:
    """The observables that a kind of evidence allows.

    Args:
        evidence: The kind.

    Returns:
        Those in ``OBSERVABLES`` that need no more.
    """
    with_init, with_test = evidence.startswith("T2"), not evidence.endswith("train")
    return tuple(
        one for one in OBSERVABLES if (with_init or not one.init) and (with_test or not one.test)
    )


def matrix(columns: Columns, rows: tuple[Observable, ...]) -> Values:
    """Observables of some nets, ``[R, len(rows)]``.

    NaN where a measurement failed, infinite where the net can't have it by construction.
    """
    with np.errstate(all="ignore"):
        values = np.stack([one.compute(columns) for one in rows], axis=1)
    values[~np.isfinite(values)] = np.nan
    for k, one in enumerate(rows):
        if one.lacking is not None:
            values[np.isnan(values[:, k]) & one.lacking(columns), k] = np.inf
    return values


# --- how they are made ----------------------------------------------------------------------


def _log(column: str, floor: float = SMALL) -> Callable[[Columns], Values]:
    return lambda k: np.log2(np.maximum(k[column], floor))


def _ratio(over: str, under: str, floor: float = SMALL) -> Callable[[Columns], Values]:
    return lambda k: np.log2(np.maximum(k[over], floor) / np.maximum(k[under], floor))


def _plain(column: str) -> Callable[[Columns], Values]:
    return lambda k: k[column]


def _difference(first: str, second: str) -> Callable[[Columns], Values]:
    return lambda k: k[first] - k[second]


def _log_odds(share: Values, floor: float = 2e-3) -> Values:
    kept = np.clip(share, floor, 1 - floor)
    odds: Values = np.log2(kept / (1 - kept))
    return odds


def _odds(column: str, floor: float = 2e-3) -> Callable[[Columns], Values]:
    """Log odds of a share."""
    return lambda k: _log_odds(k[column], floor)


def _odds_of(errors: str, accuracy: str) -> Callable[[Columns], Values]:
    """How many times the odds of an error are those of a probe, which is told by its accuracy."""
    return lambda k: _log_odds(k[errors]) - _log_odds(1 - k[accuracy])


def _more(first: str, second: str) -> Callable[[Columns], Values]:
    """Log odds of one accuracy minus those of another."""
    return lambda k: _log_odds(k[first]) - _log_odds(k[second])


def _of(
    name: str,
    words: str,
    compute: Callable[[Columns], Values],
    *sources: str,
    init: bool = False,
    test: bool = False,
    lacking: Callable[[Columns], npt.NDArray[np.bool_]] | None = None,
) -> Observable:
    return Observable(name, words, compute, init, test, sources, lacking)


def _is(column: str, value: float) -> Callable[[Columns], npt.NDArray[np.bool_]]:
    return lambda k: np.asarray(k[column] == value)


_RANK, _TRAIN_RANK = "rank.over_classes", "rank.over_classes_train"

OBSERVABLES: tuple[Observable, ...] = (
    # --- of the setup
    _of("n_train", "log2 of the number of training points", _log("n_train"), "n_train"),
    _of("n_classes", "log2 of the number of classes", _log("n_classes"), "n_classes"),
    _of("points_per_class", "log2 of training points per class",
        _ratio("n_train", "n_classes"), "n_train", "n_classes"),
    _of("depth", "weight layers", _plain("depth"), "depth"),
    _of("width", "log2 of the width of the last features", _log("width"), "width"),
    _of("input_dim", "log2 of the numbers of an input", _log("input_dim"), "input_dim"),
    _of("parameters_per_point", "log2 of parameters per training point",
        _ratio("parameters", "n_train"), "parameters", "n_train"),
    _of("normalised", "whether the net has normalisation layers", _plain("normalised"), "normalised"),
    _of("images", "whether the net is convolutional", _plain("images"), "images"),
    # --- training points alone
    _of("train_loss", "log2 of the training loss", _log("loss.train", 1e-6), "loss.train"),
    _of("train_error", "training error", _plain("error.train"), "error.train"),
    _of("logit_scale", "size of the training logits (log2)", _log("scale.logits"), "scale.logits"),
    _of("logit_rank_train", "dimensions of the training logits over K - 1 (log2)",
        _log(f"{_TRAIN_RANK}:logits"), f"{_TRAIN_RANK}:logits", lacking=_is("n_classes", 2)),
    _of("first_rank_train", "dimensions of the first features over K - 1 (log2)",
        _log(f"{_TRAIN_RANK}:first"), f"{_TRAIN_RANK}:first"),
    _of("last_rank_train", "dimensions of the last features over K - 1 (log2)",
        _log(f"{_TRAIN_RANK}:last"), f"{_TRAIN_RANK}:last"),
    _of("least_rank_train", "dimensions of the narrowest features over K - 1 (log2)",
        _log(f"{_TRAIN_RANK}:least"), f"{_TRAIN_RANK}:least"),
    _of("rank_along_depth_train", "dimensions of the last features over the first's (log2)",
        _ratio(f"{_TRAIN_RANK}:last", f"{_TRAIN_RANK}:first"),
        f"{_TRAIN_RANK}:last", f"{_TRAIN_RANK}:first"),
    _of("last_collapse_train", "within-class spread of the last features, training points (log2)",
        _log("collapse.variability_train", 1e-6), "collapse.variability_train"),
    _of("self_duality", "match of the read-out with the class means of its features",
        _plain("collapse.self_duality"), "collapse.self_duality"),
    _of("alignment_first", "alignment of the first layer with class means of the inputs",
        _plain("alignment.class_means:first"), "alignment.class_means:first"),
    _of("alignment_before_last", "alignment of the last hidden layer with class means",
        _plain("alignment.class_means:before_last"), "alignment.class_means:before_last"),
    _of("alignment_mean", "mean alignment of all layers with class means",
        _plain("alignment.class_means:mean"), "alignment.class_means:mean"),
    _of("stable_rank_first", "stable rank of the first weights (log2)",
        _log("spectrum.stable_rank:first"), "spectrum.stable_rank:first"),
    _of("stable_rank_before_last", "stable rank of the last hidden weights (log2)",
        _log("spectrum.stable_rank:before_last"), "spectrum.stable_rank:before_last"),
    _of("stable_rank_last", "stable rank of the read-out (log2)",
        _log("spectrum.stable_rank:last"), "spectrum.stable_rank:last"),
    _of("stable_rank_least", "least stable rank of all weights (log2)",
        _log("spectrum.stable_rank:least"), "spectrum.stable_rank:least"),
    _of("stable_rank_mean", "mean stable rank of all weights (log2)",
        _log("spectrum.stable_rank:mean"), "spectrum.stable_rank:mean"),
    _of("kernel_label_alignment", "fit of the tangent kernel to the labels",
        _plain("kernel.label_alignment"), "kernel.label_alignment"),
    # --- test points
    _of("test_error", "test error (log odds)", _odds("error.test"), "error.test", test=True),
    _of("test_loss", "log2 of the test loss", _log("loss.test"), "loss.test", test=True),
    _of("loss_per_error", "test loss for each test error (log2)",
        _ratio("loss.test", "error.test", 2e-3), "loss.test", "error.test", test=True),
    _of("test_over_train_loss", "test loss over training loss (log2)",
        _ratio("loss.test", "loss.train", 1e-5), "loss.test", "loss.train", test=True),
    _of("gap", "test error minus training error",
        _difference("error.test", "error.train"), "error.test", "error.train", test=True),
    _of("calibration", "calibration error", _plain("calibration.expected_error"),
        "calibration.expected_error", test=True),
    _of("brier", "Brier score", _plain("calibration.brier"), "calibration.brier", test=True),
    _of("logit_rank", "dimensions of the test logits over K - 1 (log2)",
        _log(f"{_RANK}:logits"), f"{_RANK}:logits", test=True, lacking=_is("n_classes", 2)),
    _of("first_rank", "dimensions of the first features over K - 1, test points (log2)",
        _log(f"{_RANK}:first"), f"{_RANK}:first", test=True),
    _of("last_rank", "dimensions of the last features over K - 1, test points (log2)",
        _log(f"{_RANK}:last"), f"{_RANK}:last", test=True),
    _of("least_rank", "dimensions of the narrowest features over K - 1, test points (log2)",
        _log(f"{_RANK}:least"), f"{_RANK}:least", test=True),
    _of("mean_rank", "mean dimensions of features over K - 1, test points (log2)",
        _log(f"{_RANK}:mean"), f"{_RANK}:mean", test=True),
    _of("rank_along_depth", "dimensions of the last features over the first's, test points (log2)",
        _ratio(f"{_RANK}:last", f"{_RANK}:first"), f"{_RANK}:last", f"{_RANK}:first", test=True),
    _of("rank_test_over_train", "dimensions of the last features, test over training points (log2)",
        _ratio(f"{_RANK}:last", f"{_TRAIN_RANK}:last"),
        f"{_RANK}:last", f"{_TRAIN_RANK}:last", test=True),
    _of("logit_rank_test_over_train", "dimensions of the logits, test over training points (log2)",
        _ratio(f"{_RANK}:logits", f"{_TRAIN_RANK}:logits"),
        f"{_RANK}:logits", f"{_TRAIN_RANK}:logits", test=True, lacking=_is("n_classes", 2)),
    _of("collapse_test", "within-class spread of the last features, test points (log2)",
        _log("collapse.variability_test", 1e-4), "collapse.variability_test", test=True),
    _of("collapse_test_over_train",
        "within-class spread of the last features, test over training points (log2)",
        _log("collapse.test_over_train", 1e-3), "collapse.test_over_train", test=True),
    _of("nearest_mean", "agreement with the nearest class mean of the inputs (log odds)",
        _odds("agreement.nearest_class_mean"), "agreement.nearest_class_mean", test=True),
    _of("nearest_mean_in_features", "agreement with the nearest class mean of its features (log odds)",
        _odds("agreement.nearest_class_mean_in_features"),
        "agreement.nearest_class_mean_in_features", test=True),
    _of("dimension_of_inputs", "intrinsic dimension of the inputs (log2)",
        _log("dimension.two_nn_of_inputs", 0.1), "dimension.two_nn_of_inputs", test=True),
    _of("dimension_kept", "intrinsic dimension of the last features over that of the inputs (log2)",
        _ratio("dimension.two_nn", "dimension.two_nn_of_inputs", 0.1),
        "dimension.two_nn", "dimension.two_nn_of_inputs", test=True),
    _of("error_over_input_probe", "error of the net against a linear probe of the inputs (log odds)",
        _odds_of("error.test", "probe.ridge_on_inputs"),
        "error.test", "probe.ridge_on_inputs", test=True),
    _of("error_over_class_means",
        "error of the net against the nearest class mean of the inputs (log odds)",
        _odds_of("error.test", "reference.class_means"),
        "error.test", "reference.class_means", test=True),
    _of("error_over_kernel", "error of the net against a fixed kernel (log odds)",
        _odds_of("error.test", "reference.kernel"), "error.test", "reference.kernel", test=True),
    _of("class_means_over_kernel", "nearest class mean against a fixed kernel (log odds)",
        _more("reference.class_means", "reference.kernel"),
        "reference.class_means", "reference.kernel", test=True),
    _of("kernel_smoothing", "what a ridge gains for the fixed kernel (log odds)",
        _more("reference.kernel", "reference.kernel_unsmoothed"),
        "reference.kernel", "reference.kernel_unsmoothed", test=True),
    _of("error_over_last_probe", "error of the net against a linear probe of its features (log odds)",
        _odds_of("error.test", "probe.ridge"), "error.test", "probe.ridge", test=True),
    _of("last_probe_over_inputs", "linear probe of the last features against the inputs (log odds)",
        _more("probe.ridge", "probe.ridge_on_inputs"),
        "probe.ridge", "probe.ridge_on_inputs", test=True),
    _of("first_minus_last", "linear probe of the first layer minus the last",
        _plain("probe.ridge_first_minus_last"), "probe.ridge_first_minus_last", test=True,
        lacking=_is("depth", 2)),
    _of("few_shot_over_inputs", "few-shot probe of the last features against the inputs (log odds)",
        _more("probe.few_shot", "probe.few_shot_on_inputs"),
        "probe.few_shot", "probe.few_shot_on_inputs", test=True),
    _of("few_shot_over_linear", "few-shot against linear probe of the last features (log odds)",
        _more("probe.few_shot", "probe.ridge"), "probe.few_shot", "probe.ridge", test=True),
    _of("inputs_kept", "what the last features keep of the inputs (R^2)",
        lambda k: np.maximum(k["probe.inputs_kept"], -1.0), "probe.inputs_kept", test=True),
    # --- initial weights
    _of("initial_logits", "size of c f_0, the output before training, on training points (log2)",
        _log("scale.logits_at_init", 1e-6), "scale.logits_at_init", init=True),
    _of("initial_over_final_logits", "size of c f_0 over that of the logits (log2)",
        _ratio("scale.logits_at_init", "scale.logits", 1e-6),
        "scale.logits_at_init", "scale.logits", init=True),
    _of("movement_first", "relative change of the first weights (log2)",
        _log("movement.relative:first"), "movement.relative:first", init=True),
    _of("movement_before_last", "relative change of the last hidden weights (log2)",
        _log("movement.relative:before_last"), "movement.relative:before_last", init=True),
    _of("movement_last", "relative change of the read-out (log2)",
        _log("movement.relative:last"), "movement.relative:last", init=True),
    _of("movement_mean", "mean relative change of the weights (log2)",
        _log("movement.relative:mean"), "movement.relative:mean", init=True),
    _of("movement_least", "least relative change of all weights (log2)",
        _log("movement.relative:least"), "movement.relative:least", init=True),
    _of("movement_largest", "largest relative change of all weights (log2)",
        _log("movement.relative:largest"), "movement.relative:largest", init=True),
    _of("similarity_first_train", "likeness of the first features to those at init (CKA, log odds)",
        _odds("cka.init_to_final_train:first"), "cka.init_to_final_train:first", init=True),
    _of("similarity_last_train", "likeness of the last features to those at init (CKA, log odds)",
        _odds("cka.init_to_final_train:last"), "cka.init_to_final_train:last", init=True),
    _of("similarity_mean_train", "mean likeness of features to those at init (CKA)",
        _plain("cka.init_to_final_train:mean"), "cka.init_to_final_train:mean", init=True),
    _of("rank_to_init_first", "dimensions of the first features over those at init (log2)",
        _log("rank.to_init:first"), "rank.to_init:first", init=True),
    _of("rank_to_init_last", "dimensions of the last features over those at init (log2)",
        _log("rank.to_init:last"), "rank.to_init:last", init=True),
    _of("rank_to_init_least",
        "dimensions of features over those at init, least of all layers (log2)",
        _log("rank.to_init:least"), "rank.to_init:least", init=True),
    _of("rank_to_init_largest",
        "dimensions of features over those at init, largest of all layers (log2)",
        _log("rank.to_init:largest"), "rank.to_init:largest", init=True),
    _of("stable_rank_to_init_first", "stable rank of the first weights over that at init (log2)",
        _ratio("spectrum.stable_rank:first", "spectrum.stable_rank_at_init:first"),
        "spectrum.stable_rank:first", "spectrum.stable_rank_at_init:first", init=True),
    _of("stable_rank_to_init_before_last",
        "stable rank of the last hidden weights over that at init (log2)",
        _ratio("spectrum.stable_rank:before_last", "spectrum.stable_rank_at_init:before_last"),
        "spectrum.stable_rank:before_last", "spectrum.stable_rank_at_init:before_last", init=True),
    _of("stable_rank_to_init_last", "stable rank of the read-out over that at init (log2)",
        _ratio("spectrum.stable_rank:last", "spectrum.stable_rank_at_init:last"),
        "spectrum.stable_rank:last", "spectrum.stable_rank_at_init:last", init=True),
    _of("alignment_gain_first", "alignment of the first layer with class means, minus that at init",
        _difference("alignment.class_means:first", "alignment.class_means_at_init:first"),
        "alignment.class_means:first", "alignment.class_means_at_init:first", init=True),
    _of("alignment_gain_mean", "mean alignment with class means, minus that at init",
        _difference("alignment.class_means:mean", "alignment.class_means_at_init:mean"),
        "alignment.class_means:mean", "alignment.class_means_at_init:mean", init=True),
    _of("kernel_change", "change of the tangent kernel",
        _plain("kernel.change"), "kernel.change", init=True),
    _of("kernel_label_gain", "fit of the tangent kernel to the labels, minus that at init",
        _difference("kernel.label_alignment", "kernel.label_alignment_at_init"),
        "kernel.label_alignment", "kernel.label_alignment_at_init", init=True),
    # --- initial weights and test points
    _of("share_of_initial", "share of c f_0 in the test logits (log odds)",
        _odds("share.initial_function", 1e-5), "share.initial_function", init=True, test=True,
        lacking=_is("centered", 1)),
    _of("similarity_first", "likeness of the first features to those at init, test points (log odds)",
        _odds("cka.init_to_final:first"), "cka.init_to_final:first", init=True, test=True),
    _of("similarity_last", "likeness of the last features to those at init, test points (log odds)",
        _odds("cka.init_to_final:last"), "cka.init_to_final:last", init=True, test=True),
    _of("similarity_least", "least likeness of features to those at init, test points (CKA)",
        _plain("cka.init_to_final:least"), "cka.init_to_final:least", init=True, test=True),
    _of("probe_gain", "linear probe of the last features against those at init (log odds)",
        _more("probe.ridge", "probe.ridge_at_init"),
        "probe.ridge", "probe.ridge_at_init", init=True, test=True),
    _of("few_shot_gain", "few-shot probe of the last features against those at init (log odds)",
        _more("probe.few_shot", "probe.few_shot_at_init"),
        "probe.few_shot", "probe.few_shot_at_init", init=True, test=True),
    _of("error_over_initial_probe",
        "error of the net against a linear probe of its features at init (log odds)",
        _odds_of("error.test", "probe.ridge_at_init"),
        "error.test", "probe.ridge_at_init", init=True, test=True),
    _of("inputs_forgotten", "what the last features lost of the inputs (R^2)",
        lambda k: np.clip(k["probe.inputs_kept_at_init"] - k["probe.inputs_kept"], -2.0, 2.0),
        "probe.inputs_kept_at_init", "probe.inputs_kept", init=True, test=True),
)  # fmt: skip
