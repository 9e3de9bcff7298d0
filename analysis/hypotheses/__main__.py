"""`python -P -m analysis.hypotheses DIR`."""

from analysis.hypotheses.report import main
from unlearn_core.host.output import run

raise SystemExit(run(main))
