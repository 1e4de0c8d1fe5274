"""What every experiment runs on: configurations, runs, records and where they came from."""
