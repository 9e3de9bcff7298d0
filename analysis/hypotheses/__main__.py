"""`python -P -m analysis.hypotheses DIR`."""

from analysis.hypotheses.report import main
from unlearn_core.host.output import run

if __name__ == "__main__":
    raise SystemExit(run(main))
