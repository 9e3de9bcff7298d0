"""Files in a sweep's folder by which driver, workers and onlookers know of each other."""

from __future__ import annotations

LOCK = ".lock"  # lease of the driver
STOP = ".stop"  # workers begin nothing more once it is there
WORKING = ".working"  # a folder with a lease for every task that a worker is at
