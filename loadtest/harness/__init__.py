"""The parts of run.py: processes, proxies, drivers, scenarios, records and reports."""
