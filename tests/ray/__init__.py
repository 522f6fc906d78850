"""Tests of whole data sets on Ray, in an environment of their own: `make test-ray`."""
