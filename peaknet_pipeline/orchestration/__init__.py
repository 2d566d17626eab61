"""The only rooms that know Dagster: assets, checks, partitions, resources, sensors, jobs."""
