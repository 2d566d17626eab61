"""Steps: several rooms composed on arrays and open runs; no store, no Dagster, no path that was not given."""
