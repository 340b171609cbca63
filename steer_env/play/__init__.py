"""Playing to measure: suites, controls, stored runs under another judge, two runs compared."""
