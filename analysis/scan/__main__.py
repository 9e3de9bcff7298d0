"""`python -P -m analysis.scan DIR`."""

from analysis.scan.report import main
from unlearn_core.host.output import run

if __name__ == "__main__":
    raise SystemExit(run(main))
