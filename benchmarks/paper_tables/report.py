"""Tables as Markdown: the published figure beside ours, differences in set-up in the same row, and what the spread says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from paper_tables.methods import METHODS
from paper_tables.tables import PAPERS, PUBLISHED, Table, published_setup

MISSING = "-"
CLEAN = "clean"
Cell = Mapping[str, Any]
Measured = Mapping[tuple[str, str, str, int], Cell]
"""(set, method, level, seed) to its cell."""
Spoilt = Mapping[tuple[str, str, str, int, int], Cell]
"""(set, method, corruption, severity, seed) to its cell; clean images have severity 0."""
Setups = Mapping[tuple[str, str], str]
"""(set, method) to how it was pretrained and is read."""


@dataclass(frozen=True)
class Difference:
    """Two methods compared seed by seed: mean and deviation of the difference in points, and the 95 % interval of the mean."""

    mean: float
    deviation: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.seeds < 2:
            return "one seed: no spread"
        if self.low > 0:
            return "holds"
        return "the other way about" if self.high < 0 else "not told apart"


def seed_means(cells: Measured, data: str, method: str, level: str, metric: str) -> dict[int, float]:
    """Mean over test images of every seed, in percent."""
    means = {}
    for (of, by, at, seed), cell in cells.items():
        if (of, by, at) == (data, method, level) and metric in cell["scores"]:
            values = np.array([np.nan if value is None else value for value in cell["scores"][metric]], float)
            if np.isfinite(values).any():
                means[seed] = 100 * float(np.nanmean(values))
    return means


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """First less second, over the seeds that both have; None if there are none."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    values = np.array([first[seed] - second[seed] for seed in seeds])
    mean, deviation = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return Difference(mean, deviation, mean - reach, mean + reach, len(values))


def dense_table(name: str, table: Table, cells: Measured, setups: Setups, split: Mapping[str, str]) -> str:
    """A table of heads on dense labels; `setups` is ours of each (set, method), `split` that of each set."""
    lines = _head(name, table)
    for data in table.sets:
        if data not in split:
            where = f"it would be `{data}/images` and `{data}/masks`"
            lines += ["", f"### {data}", "", f"The data set is not in the folder; {where}."]
            continue
        lines += ["", f"### {data}", "", f"Split here: {split[data]}.", ""]
        lines += _markdown(_COLUMNS, _dense_rows(table, data, cells, setups))
        lines += _comparisons(table, data, cells)
    return "\n".join(lines) + "\n"


_COLUMNS = (
    "method", "labels", "published Dice", "Dice", "IoU as published for GlaS: D/(2-D)",
    "IoU of each image = AJI as published, on binary maps (published)", "AJI of instances", "object Dice", "seeds",
    "set-up published", "set-up here",
)  # fmt: skip
_METRICS = ("dice", "iou", "aji", "object_dice")


def _dense_rows(table: Table, data: str, cells: Measured, setups: Setups) -> list[list[str]]:
    rows = []
    for level in table.levels:
        for row in table.rows:
            if row.method:
                rows.append(_ours(row.method, data, level, cells, setups))
            elif figures := PUBLISHED.get((data, level, row.title)):
                quoted = [row.title, level, f"{figures['dice']:.1f}", *[MISSING] * (len(_COLUMNS) - 5)]
                rows.append([*quoted, published_setup(data, row.title), "not run: quoted only"])
    return rows


def _ours(method: str, data: str, level: str, cells: Measured, setups: Setups) -> list[str]:
    figures = PUBLISHED.get((data, level, method), {})
    means = {metric: seed_means(cells, data, method, level, metric) for metric in _METRICS}
    from_dice = [100 * dice / (200 - dice) for dice in means["dice"].values()]
    binary = spread(means["iou"].values()) + (f" ({figures['aji_binary']:.1f})" if "aji_binary" in figures else "")
    return [
        METHODS[method].title,
        level,
        f"{figures['dice']:.1f}" if figures else "not quoted",
        spread(means["dice"].values()),
        spread(from_dice),
        binary,
        spread(means["aji"].values()),
        spread(means["object_dice"].values()),
        str(len(means["dice"])),
        published_setup(data, method) if figures else "not quoted",
        setups.get((data, method), "not pretrained yet"),
    ]


def _comparisons(table: Table, data: str, cells: Measured) -> list[str]:
    """Paired differences, and a line on the ordering."""
    rows, words = [], []
    for level in table.levels:
        for first, second in table.claims:
            both = [seed_means(cells, data, method, level, "dice") for method in (first, second)]
            found = difference(*both)
            if found is None:
                continue
            names = f"{METHODS[first].title} above {METHODS[second].title}"
            figures = [PUBLISHED.get((data, level, method), {}).get("dice") for method in (first, second)]
            quoted = f"{figures[0] - figures[1]:+.1f}" if None not in figures else "not quoted"
            here = f"{found.mean:+.1f} ± {found.deviation:.1f}"
            rows.append([names, level, quoted, here, _interval(found), str(found.seeds), found.verdict])
            words.append(f"{names} ({level}): {found.verdict}")
    if not rows:
        return ["", "Nothing to compare yet: no two methods are measured on the same seeds."]
    head = ["claim", "labels", "published, points of Dice", "here, paired by seed", "95 % interval", "seeds", "verdict"]
    note = "Folds of different seeds share images, so the intervals are a little too narrow."
    return ["", *_markdown(head, rows), "", f"**Ordering on {data}**: {'; '.join(words)}. {note}"]


def _interval(found: Difference) -> str:
    return MISSING if found.seeds < 2 else f"{found.low:+.1f} to {found.high:+.1f}"


def robustness_table(name: str, table: Table, cells: Spoilt, setups: Setups) -> str:
    """Dice under each corruption, mean over severities, and what is left of the clean Dice."""
    lines = _head(name, table)
    for data in dict.fromkeys(key[0] for key in cells):
        methods = list(dict.fromkeys(key[1] for key in cells if key[0] == data))
        names = [each for each in dict.fromkeys(key[2] for key in cells if key[0] == data) if each != CLEAN]
        rows = [[each, *(_robust(cells, data, method, each) for method in methods)] for each in [CLEAN, *names]]
        rows.append(["mean of the corrupted", *(_left(cells, data, method, names) for method in methods)])
        words = "Dice (%), mean ± standard deviation over seeds; in brackets the change from clean in points."
        lines += ["", f"### {data}", "", words, ""]
        lines += _markdown(["corruption", *(METHODS[method].title for method in methods)], rows)
        here = "; ".join(f"{METHODS[method].title}: {setups.get((data, method), 'unknown')}" for method in methods)
        lines += ["", f"Published: not quoted. Set-up here: {here}."]
    return "\n".join(lines) + "\n"


def _by_seed(cells: Spoilt, data: str, method: str, names: Sequence[str]) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for (of, by, name, _severity, seed), cell in cells.items():
        if (of, by) == (data, method) and name in names:
            dice = np.array([np.nan if value is None else value for value in cell["scores"]["dice"]], float)
            values.setdefault(seed, []).append(100 * float(np.nanmean(dice)))
    return {seed: float(np.mean(each)) for seed, each in values.items()}


def _robust(cells: Spoilt, data: str, method: str, name: str) -> str:
    values, clean = _by_seed(cells, data, method, [name]), _by_seed(cells, data, method, [CLEAN])
    lost = [values[seed] - clean[seed] for seed in values if seed in clean]
    return spread(values.values()) + (f" ({np.mean(lost):+.1f})" if lost and name != CLEAN else "")


def _left(cells: Spoilt, data: str, method: str, names: Sequence[str]) -> str:
    values, clean = _by_seed(cells, data, method, names), _by_seed(cells, data, method, [CLEAN])
    shares = [values[seed] / clean[seed] for seed in values if clean.get(seed)]
    return spread(values.values()) + (f" ({100 * np.mean(shares):.0f} % of clean)" if shares else "")


def plain_table(name: str, table: Table, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A table whose rows are ready."""
    return "\n".join([*_head(name, table), "", *_markdown(head, rows), "", *notes]).rstrip() + "\n"


def _head(name: str, table: Table) -> list[str]:
    return [f"## {name}: {table.title} ({PAPERS[table.paper]})", "", *(f"- {note}." for note in table.notes)]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def spread(values: Any) -> str:
    """Mean and standard deviation; a dash if there is nothing."""
    found = np.array(list(values), float)
    if not len(found):
        return MISSING
    return f"{found.mean():.1f}" + (f" ± {found.std(ddof=1):.1f}" if len(found) > 1 else "")
