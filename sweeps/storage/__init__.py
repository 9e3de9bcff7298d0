"""Where a sweep keeps its files: records, artifacts and leases, in a folder or in an object store."""
