"""Figures as files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf

from analysis.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, stem: Path) -> Path:
    """Write `stem`.png and `stem`.pdf without a date, so that equal records give equal files; returns the image.

    Raises OSError; drawn straight to a disk that is full, a page would fail by another error on the way out.
    """
    image, page = BytesIO(), BytesIO()
    figure.set_dpi(style.RC["savefig.dpi"])
    FigureCanvasAgg(figure).print_png(image)  # `savefig` would draw everything, and find its place, twice
    figure.set_layout_engine("none")  # the places found for the image hold for the page too; finding them is slow
    FigureCanvasPdf(figure).print_pdf(page, metadata={"CreationDate": None})
    plt.close(figure)
    stem.with_name(stem.name + ".pdf").write_bytes(page.getvalue())
    path = stem.with_name(stem.name + ".png")
    path.write_bytes(image.getvalue())
    return path
