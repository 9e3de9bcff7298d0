"""Interactive figures as plain plotly.js specifications: no drawing happens here."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.figures import front, style, tradeoff
from analysis.reading.points import AXES, RETRAIN_AT_BUDGET
from analysis.results.analyse import Results
from analysis.results.verdict import display, percent
from analysis.statistics.intervals import Interval

FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#222"}
LAYOUT: dict[str, Any] = {
    "font": FONT, "margin": {"l": 56, "r": 12, "t": 30, "b": 48}, "height": 440, "plot_bgcolor": "#fff",
    "paper_bgcolor": "#fff", "hovermode": "closest", "legend": {"orientation": "h", "y": -0.26, "x": 0},
    "hoverlabel": {"align": "left", "bgcolor": "#fff", "font": {"size": 12}},
}  # fmt: skip
Spec = dict[str, Any]
OTHERS = "others"


def front_spec(results: Results, attack: str, axis: str) -> Spec:
    """`{"data": [...], "layout": {...}}` of one attack's front against one budget axis."""
    shown = front.curve(results, attack, AXES[axis])
    looks = style.looks(results.methods, results.highlighted)
    data = [_cloud(shown), _outline(shown)]
    if len(shown.retrain):
        data.append(_trace(shown.retrain, looks[RETRAIN_AT_BUDGET], dash=True))
    owns = {str(method): own for method, own in shown.points.groupby("method")}
    order = sorted((m for m in results.methods if m in owns), key=lambda m: not looks[m].faint)  # faint ones below
    data += [_trace(owns[m], looks[m]) for m in order]
    _share_legend(data, style.others(looks))
    lowest = float(pd.concat([shown.points, shown.retrain])["efficacy"].min())
    layout = _layout(shown.axis.label, lowest, shown.band)
    layout["xaxis"] |= {"tickformat": ".3~%" if shown.axis.is_share else "~s", "rangemode": "tozero"}
    return {"data": data, "layout": layout}


def tradeoff_spec(results: Results, attack: str) -> Spec:
    """Efficacy against utility gap with the budget as marker size."""
    shown = tradeoff.curve(results, attack)
    looks = style.looks(results.methods, results.highlighted)
    data = []
    for method in (RETRAIN_AT_BUDGET, *sorted(results.methods, key=lambda m: not looks[m].faint)):
        own = shown.points[shown.points["method"] == method]
        if len(own):
            trace = _trace(own.assign(x=own["utility_gap"]), looks[method])
            scale = 0.8 if looks[method].faint else 1.6
            size = (own["size"] ** 0.5 * scale).round(1).tolist()
            faint = [1.0 if on or method == RETRAIN_AT_BUDGET else 0.35 for on in own["on_front"]]
            trace["marker"] |= {"size": size, "opacity": faint}
            data.append(trace | {"error_y": {"visible": False}})
    _share_legend(data, style.others(looks))
    layout = _layout("utility gap (oracle accuracy - accuracy)", float(shown.points["efficacy"].min()), shown.band)
    line = {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": shown.tolerance,
        "x1": shown.tolerance,
        "y0": 0,
        "y1": 1,
    }
    layout["shapes"].append(line | {"line": {"color": style.GREY, "dash": "dot", "width": 1}})
    return {"data": data, "layout": layout}


def _share_legend(data: list[Spec], name: str) -> None:
    """One legend entry for all faint methods; it hides and shows them together, and hovering names each."""
    faint = [trace for trace in data if trace.get("legendgroup") == OTHERS]
    for i, trace in enumerate(faint):
        trace |= {"showlegend": i == 0, "name": name}


def _layout(x_title: str, lowest: float, band: Interval) -> Spec:
    shapes: list[Spec] = []
    if math.isfinite(band.low):
        area = {"type": "rect", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "layer": "below", "line": {"width": 0}}
        shapes.append(area | {"y0": band.low, "y1": min(band.high, 1.0), "fillcolor": "rgba(150,150,150,0.28)"})
    grid = {"gridcolor": "#eee", "zerolinecolor": "#ccc", "linecolor": "#888"}
    limits = list(style.efficacy_limits(lowest))
    return LAYOUT | {
        "xaxis": {"title": {"text": x_title}, **grid},
        "yaxis": {"title": {"text": "efficacy"}, "range": limits, **grid},
        "shapes": shapes,
    }


def _cloud(shown: front.FrontCurve) -> Spec:
    """Says nothing when hovered over: what is nearest to the pointer speaks, and these are everywhere."""
    return {
        "type": "scatter", "mode": "markers", "name": "tuning proposals", "x": _list(shown.cloud["x"]),
        "y": _list(shown.cloud["efficacy"]), "hoverinfo": "skip",
        "marker": {"size": 4, "color": style.GREY, "opacity": 0.4},
    }  # fmt: skip


def _outline(shown: front.FrontCurve) -> Spec:
    line = {"color": style.BLACK, "width": 1.4}
    x, y = shown.outline[:, 0].tolist(), shown.outline[:, 1].tolist()
    return {"type": "scatter", "mode": "lines", "name": "Pareto front", "x": x, "y": y, "hoverinfo": "skip",
            "line": line, "opacity": 0.6}  # fmt: skip


def _trace(own: pd.DataFrame, look: style.Look, *, dash: bool = False) -> Spec:
    records = sorted(own.to_dict("records"), key=lambda row: float(row["budget"]))
    method = str(records[0]["method"])
    symbols = [look.symbol + ("" if row["eligible"] else "-open") for row in records]
    # As in figures/front.py, intervals are drawn on the front only: the others are in the hover text.
    up = [row["efficacy_high"] - row["efficacy"] if row["on_front"] else math.nan for row in records]
    down = [row["efficacy"] - row["efficacy_low"] if row["on_front"] else math.nan for row in records]
    grouped = {"legendgroup": OTHERS, "legendrank": 2000} if look.faint else {}
    return grouped | {
        "type": "scatter", "mode": "lines+markers" if dash else "markers", "name": html.escape(display(method)),
        "x": _list(row["x"] for row in records), "y": _list(row["efficacy"] for row in records),
        "line": {"color": look.colour, "dash": "dash", "width": 1.2},
        "marker": {"color": look.colour, "symbol": symbols, "size": 5 if look.faint else 9,
                   "line": {"width": 1.0 if look.faint else 1.5, "color": look.colour}},
        "error_y": {"type": "data", "symmetric": False, "array": _list(up), "arrayminus": _list(down),
                    "color": look.colour + "59", "thickness": 1, "width": 0},
        "text": [_hover(row) for row in records], "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _hover(row: dict[Any, Any]) -> str:
    inside = "inside" if row["within_tolerance"] else "outside"
    lines = [
        _title(row),
        f"efficacy {_n(row['efficacy'])} [{_n(row['efficacy_low'])}, {_n(row['efficacy_high'])}]",
        f"removal {_n(row['removal'])}, utility gap {_n(row['utility_gap'])} ({inside} tolerance)",
        f"spent {percent(row['budget_spent'])} of FLOPs, {percent(row['seconds_share'])} of seconds",
        f"{row['n_counted']} of {row['n_seeds']} seeds counted, {row['n_failed']} failed",
        *_settings(str(row["settings"])),
    ]
    return "<br>".join(lines)


def _title(row: dict[Any, Any]) -> str:
    return f"<b>{html.escape(display(str(row['method'])))}</b> at {percent(row['budget'])}"


def _settings(text: str) -> list[str]:
    """Settings, a few per line; plotly reads its texts as a small subset of HTML, so names are escaped."""
    try:
        settings = json.loads(text)
    except ValueError:
        return [html.escape(text[:200])] if text else []
    if not isinstance(settings, dict):
        return [html.escape(str(settings)[:200])]
    pairs = [html.escape(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}"[:80]) for k, v in settings.items()]
    return [", ".join(pairs[i : i + 4]) for i in range(0, len(pairs), 4)]


def _list(values: Iterable[float]) -> list[float | None]:
    """JSON knows no NaN."""
    return [round(float(v), 6) if math.isfinite(v) else None for v in values]


def _n(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "n/a"
