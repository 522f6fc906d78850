"""Specification of `iwp_core`, one file a subject, on every array library."""
