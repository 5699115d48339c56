"""McNemar's test for the predictions of two networks on the same samples: Tables 4 and S1."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from vidpool.analysis.published import TABLE_S1, ErrorCounts
from vidpool.errors import ConfigError, DataError
from vidpool.figures import BLUE, ORANGE, plain_text
from vidpool.files import open_text

MIN_DISAGREEING = 25
"""Smallest number of disagreements for chi-square; the exact test decides below it."""
MAX_COUNT = 2**50
"""Largest number of samples; double precision does not represent all integers far above it."""
KEY = ("path", "start", "end")
REQUIRED = ("path", "label", "predicted")


class Contingency(NamedTuple):
    """Numbers of samples that both, one or neither of two networks A and B classifies correctly."""

    both: int | None
    """None if unknown; the test does not need it."""
    only_a: int
    only_b: int
    neither: int | None

    @property
    def total(self) -> int:
        """Number of samples, those of unknown counts excluded."""
        return sum(count or 0 for count in self)


@dataclass(frozen=True)
class McNemar:
    """Result of the test for a difference between the error rates of two networks."""

    statistic: float
    """Chi-square with one degree of freedom, with Edwards' correction (equation S1)."""
    p_value: float
    """Probability of a statistic at least as large if both error rates are equal."""
    exact_p_value: float
    """Two-sided p-value of the binomial distribution, valid for any number of disagreements."""


def mcnemar(only_a: int, only_b: int) -> McNemar:
    """Test whether two networks have different accuracies.

    The statistic is ``(|n_ij - n_ji| - 1)^2 / (n_ij + n_ji)`` (equation S1). If the two numbers are
    equal, it is 0 instead of the 1 / (n_ij + n_ji) of that formula.

    Args:
        only_a: Number of samples that only the first network classifies correctly.
        only_b: Number of samples that only the second network classifies correctly.

    Raises:
        ConfigError: A number is negative or above ``MAX_COUNT``, or SciPy is not installed.
    """
    if only_a < 0 or only_b < 0:
        raise ConfigError(f"counts must not be negative, got {only_a} and {only_b}")
    if max(only_a, only_b) > MAX_COUNT:
        raise ConfigError(f"counts must not be above {MAX_COUNT:,}, got {only_a} and {only_b}")
    try:
        from scipy.stats import binom, chi2
    except ImportError:
        raise ConfigError(
            "SciPy is not installed, whose distributions the test needs: "
            "pip install 'vidpool[analysis]'"
        ) from None
    differing = only_a + only_b
    if only_a == only_b:
        return McNemar(0.0, 1.0, 1.0)
    statistic = (abs(only_a - only_b) - 1) ** 2 / differing
    exact = 2 * float(binom.cdf(min(only_a, only_b), differing, 0.5))
    return McNemar(statistic, float(chi2.sf(statistic, 1)), min(1.0, exact))


def read_predictions(file: Path) -> dict[tuple[str, ...], tuple[str, bool]]:
    """Read a ``predictions.csv`` of ``vidpool test``, or a CSV file with the same columns.

    Args:
        file: CSV file whose first line names the columns. ``path``, ``label`` and ``predicted`` are
            required; ``start`` and ``end`` distinguish spans of one file. A folder stands for the
            ``predictions.csv`` in it.

    Returns:
        Label of each sample and whether the prediction is correct, by path, start and end.

    Raises:
        DataError: The file cannot be read, lacks a column, or contains a sample twice.
    """
    if file.is_dir():
        folder, file = file, file / "predictions.csv"
        if not file.exists():
            raise DataError(
                f"{folder}: holds no {file.name}, which `vidpool test` leaves in runs/NAME/test_N"
            )
    samples: dict[tuple[str, ...], tuple[str, bool]] = {}
    try:
        with open_text(file) as text:
            rows = csv.DictReader(text)
            missing = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{file}: has no column {', '.join(missing)}; the first line must name the "
                    f"columns, as in the predictions.csv of `vidpool test`: {','.join(REQUIRED)}"
                )
            for row in rows:
                if not all(row[name] for name in REQUIRED):
                    raise DataError(
                        f"{file}, line {rows.line_num}: has too few values, {', '.join(REQUIRED)} "
                        "are needed"
                    )
                key = tuple(row.get(name) or "" for name in KEY)
                if key in samples:
                    raise DataError(
                        f"{file}, line {rows.line_num}: {' '.join(key).strip()} is there twice"
                    )
                samples[key] = (row["label"], row["label"] == row["predicted"])
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except csv.Error as error:
        raise DataError(f"{file}: is no CSV file ({error})") from None
    if not samples:
        raise DataError(f"{file}: holds no predictions")
    return samples


def compare_predictions(file_a: Path, file_b: Path) -> Contingency:
    """Count the samples that both, one or neither of two networks classifies correctly.

    Args:
        file_a: Predictions of the first network, see :func:`read_predictions`.
        file_b: Predictions of the second network for the same samples.

    Raises:
        DataError: A file cannot be read, or the files differ in samples or labels.
    """
    a, b = read_predictions(file_a), read_predictions(file_b)
    for samples, others, file, other_file in ((a, b, file_a, file_b), (b, a, file_b, file_a)):
        lacking = [key for key in samples if key not in others]
        if lacking:
            raise DataError(
                f"{other_file}: lacks {len(lacking)} of the {len(samples)} samples of {file}, such "
                f"as {' '.join(lacking[0]).strip()}; McNemar's test compares predictions of the "
                "same samples"
            )
    counts = dict.fromkeys([(True, True), (True, False), (False, True), (False, False)], 0)
    for key, (label, correct) in a.items():
        if b[key][0] != label:
            raise DataError(
                f"{' '.join(key).strip()}: its label is {label!r} in {file_a} and {b[key][0]!r} in "
                f"{file_b}: the two runs are of different data"
            )
        counts[correct, b[key][1]] += 1
    return Contingency(*counts.values())


@dataclass(frozen=True)
class ReproducedRow:
    """A row of Table 4, recomputed from the counts of Table S1."""

    published: ErrorCounts
    counts: Contingency
    test: McNemar
    misprints: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "network": self.published.network,
            "counts": self.counts._asdict(),
            **asdict(self.test),
            "published_statistic": self.published.statistic,
            "published_p_value": self.published.p_value,
            "misprints": self.misprints,
        }


def reproduce_table_4() -> list[ReproducedRow]:
    """Return the thirteen rows of Table 4, from the counts of Table S1; A is the SoftPool network.

    Raises:
        ConfigError: SciPy is not installed.
    """
    rows = []
    for row in TABLE_S1:
        counts = Contingency(
            row.correct_correct, row.correct_wrong, row.wrong_correct, row.wrong_wrong
        )
        test = mcnemar(counts.only_a, counts.only_b)
        rows.append(ReproducedRow(row, counts, test, tuple(find_misprints(row, counts, test))))
    return rows


def find_misprints(row: ErrorCounts, counts: Contingency, test: McNemar) -> list[str]:
    """Return the paper's figures of a network that contradict its own counts.

    Differences of one in the last printed digit of a statistic or p-value are accepted, and
    differences of 0.1 in accuracy.
    """
    found = []
    if abs(float(row.statistic) - test.statistic) > 0.0101:
        found.append(f"Table 4's statistic {row.statistic} should be {test.statistic:.2f}")
    try:
        wrong_p = abs(float(row.p_value) / test.p_value - 1) > 0.011
    except ValueError:
        wrong_p = True
    if wrong_p:
        found.append(f"Table 4's p-value {row.p_value} should be {test.p_value:.2e}")
    soft = row.correct_correct + row.correct_wrong
    original = row.correct_correct + row.wrong_correct
    for name, right, printed in (
        ("SoftPool", soft, row.soft_totals),
        ("original", original, row.original_totals),
    ):
        totals = (right, counts.total - right)
        if totals != printed:
            found.append(
                f"Table S1's totals of the {name} network, {printed[0]} and {printed[1]}, should "
                f"be {totals[0]} and {totals[1]}"
            )
    for name, right, percent in zip(
        ("original", "SoftPool"), (original, soft), row.top1, strict=True
    ):
        counted = 100 * right / counts.total
        if abs(counted - percent) > 0.1:
            found.append(
                f"the counts give the {name} network {counted:.2f} % top-1, the paper's other "
                f"tables {percent:.2f} %"
            )
    return found


def contingency_figure(counts: Contingency, names: tuple[str, str], test: McNemar) -> Figure:
    """Draw the four counts as areas of a two by two table.

    Args:
        counts: Counts of the table.
        names: Names of the first and the second network.
        test: Result of the test.
    """
    figure = Figure(figsize=(6.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    cells = [[counts.both, counts.only_a], [counts.only_b, counts.neither]]
    shares = [[(count or 0) / max(counts.total, 1) for count in row] for row in cells]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            count, share = cells[row][column], shares[row][column]
            text = "not known" if count is None else f"{count:,}\n{share:.1%}"
            tone = "white" if share > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", color=tone, fontsize=14)
    a, b = map(plain_text, names)
    axes.set_xticks([0, 1], ["right", "wrong"])
    axes.set_yticks([0, 1], ["right", "wrong"], rotation=90, va="center")
    axes.set(xlabel=f"B: {b}", ylabel=f"A: {a}")
    figure.suptitle(
        f"{counts.total:,} samples: χ² = {test.statistic:.2f}, p = {test.p_value:.3g}"
        + (
            f" (exact: {test.exact_p_value:.3g})"
            if counts.only_a + counts.only_b < MIN_DISAGREEING
            else ""
        )
    )
    return figure


def table_4_figure(rows: list[ReproducedRow]) -> Figure:
    """Draw the computed and the published statistics on a logarithmic axis."""
    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    axes = figure.add_subplot()
    positions = range(len(rows))
    axes.barh(positions, [row.test.statistic for row in rows], 0.6, color=BLUE, label="computed")
    published = [float(row.published.statistic) for row in rows]
    axes.scatter(published, positions, color=ORANGE, marker="D", zorder=3, label="published")
    for position, row in enumerate(rows):
        star = " *" if row.misprints else ""
        axes.annotate(
            f"p = {row.test.p_value:.2e}{star}",
            (row.test.statistic, position),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.axvline(6.63, color="black", linewidth=0.8, linestyle="--", label="p = 0.01")
    axes.set_xscale("log")
    axes.set_xlim(4, 9 * max(published))
    axes.set_yticks(positions, [row.published.network for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="χ² of SoftPool against the original pooling (* has a misprint)")
    axes.legend(loc="lower right")
    figure.suptitle("Table 4, computed from the counts of Table S1")
    return figure
