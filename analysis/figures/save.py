"""Figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf

from analysis import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, stem: Path) -> Path:
    """Write `stem`.png and `stem`.pdf without a date, so that equal records give equal files; returns the image."""
    image = stem.with_name(stem.name + ".png")
    figure.set_dpi(style.RC["savefig.dpi"])
    FigureCanvasAgg(figure).print_png(image)  # `savefig` would draw everything, and find its place, twice
    figure.set_layout_engine("none")  # the places found for the image hold for the page too; finding them is slow
    FigureCanvasPdf(figure).print_pdf(stem.with_name(stem.name + ".pdf"), metadata={"CreationDate": None})
    plt.close(figure)
    return image
