"""Tests of the miniature models' package: its task, its packed training, its command."""
