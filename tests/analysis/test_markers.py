"""Markers say what they are meant to say: hollow looks hollow, methods differ, and the page agrees with the files."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from analysis.figures import front, style, tradeoff
from analysis.pages.interactive import front_spec, tradeoff_spec
from analysis.reading.points import AXES
from analysis.results.analyse import Results
from analysis.statistics.intervals import NOTHING

METHODS = [f"method{i}" for i in range(10)]
SEEN_AS = {  # linear RGB as people without one kind of cone see it, from Machado, Oliveira and Fernandes 2009
    "all cones": np.eye(3),
    "no L": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no M": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no S": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def lab(colour: str, seen_as: object) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour as somebody sees it."""
    given = np.array(to_rgb(colour))
    linear = np.where(given <= 0.04045, given / 12.92, ((given + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(seen_as) @ linear, 0, 1)
    x, y, z = (np.array(XYZ) @ seen) / [0.95047, 1, 1.08883]
    f = [np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen_as", SEEN_AS.values(), ids=SEEN_AS)
def test_ten_methods_and_retraining_differ_in_colour_for_everybody(seen_as: object) -> None:
    looks = style.looks(METHODS)
    colours = {name: lab(look.colour, seen_as) for name, look in looks.items()}
    gaps = {pair: np.linalg.norm(colours[pair[0]] - colours[pair[1]]) for pair in itertools.combinations(colours, 2)}
    near = min(gaps, key=gaps.__getitem__)
    assert gaps[near] > 15, near
    assert len({look.marker for look in looks.values()}) == len(looks)


def front_of(points: pd.DataFrame) -> front.FrontCurve:
    blank = {"on_front": False, "efficacy_low": np.nan, "efficacy_high": np.nan, "x": points["budget"]}
    shown = points.assign(**blank)
    none = shown.iloc[:0]
    return front.FrontCurve("a", AXES["flops"], shown, none, np.empty((0, 2)), NOTHING, none)


def centres(points: pd.DataFrame) -> list[np.ndarray]:
    """Colour in the middle of each point, in the figure as it is saved."""
    style.use()
    figure, ax = plt.subplots(figsize=(3.9, 3.3), dpi=150)
    front.draw(ax, front_of(points), style.looks(METHODS))
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255  # type: ignore[attr-defined]
    places = ax.transData.transform(points[["budget", "efficacy"]].to_numpy(dtype=float))
    plt.close(figure)
    return [picture[len(picture) - 1 - int(y), int(x)] for x, y in places]


@pytest.mark.parametrize("method", METHODS)
def test_a_hollow_marker_has_a_hole_and_a_full_one_none(method: str) -> None:
    budgets = np.array([0.02, 0.05, 0.08])
    points = pd.DataFrame({"method": method, "budget": budgets, "efficacy": 0.513, "eligible": [False, True, False]})
    left, middle, right = centres(points)
    assert min(left.min(), right.min()) > 0.8
    assert middle == pytest.approx(to_rgb(style.looks(METHODS)[method].colour), abs=0.02)


def test_markers_on_one_spot_keep_their_holes() -> None:
    """One run may serve three budgets: the same marker thrice at the same place."""
    spots = {"method": ["method3"] * 3 + ["method1"] * 4, "budget": [0.05] * 3 + [0.08] * 4}
    points = pd.DataFrame(spots).assign(efficacy=0.513, eligible=False)
    assert all(colour.min() > 0.8 for colour in centres(points))


def test_methods_on_one_spot_still_show_all_of_them() -> None:
    points = pd.DataFrame({"method": METHODS[:3], "budget": 0.05, "efficacy": 0.5, "eligible": True, "x": 0.05})
    sizes = front._sized(front_of(points), style.looks(METHODS))[0]["size"]
    assert sizes.is_monotonic_decreasing and sizes.is_unique


def test_tuning_proposals_never_hide_what_a_method_says(known: Results) -> None:
    for attack in ("patch", "noise"):
        cloud, *others = front_spec(known, attack, "flops")["data"]
        assert cloud["name"] == "tuning proposals" and len(cloud["x"])
        assert cloud["hoverinfo"] == "skip" and "hovertemplate" not in cloud
        assert any("hovertemplate" in trace for trace in others)


def test_the_file_and_the_page_fill_the_same_markers_of_the_tradeoff(known: Results) -> None:
    looks = style.looks(known.methods, known.highlighted)
    counts = []
    for attack in known.attacks:
        figure, ax = plt.subplots()
        tradeoff.draw(ax, tradeoff.curve(known, attack), looks)
        faces = [to_hex(face) for dots in ax.collections for face in dots.get_facecolor() if len(dots.get_offsets())]
        plt.close(figure)
        symbols = [s for trace in tradeoff_spec(known, attack)["data"] for s in trace["marker"]["symbol"]]
        counts.append(sum(s.endswith("-open") for s in symbols))
        assert faces.count("#ffffff") == counts[-1]
    assert any(counts)
