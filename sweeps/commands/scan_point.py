"""One value of a scan: a sweep whose results are shown beside those at the other values."""

from __future__ import annotations

from sweeps.commands.driver import Driver
from sweeps.planning.manifest import check_manifest
from sweeps.planning.missing import missing
from sweeps.planning.plan import check_scenarios


class ScanPoint(Driver):
    """A driver that leaves the analysis to the scan."""

    def check(self) -> None:
        """Whether what is left can be done; raises InputError. A scan asks all its points before it trains anything."""
        _ = self.place
        check_manifest(self.sweep, self.replica)
        left = missing(self.sweep, self.dir)
        if left.references or left.studies:
            check_scenarios(self._workbench())

    def _analyse(self) -> int:
        return 0
