"""Workloads that come with coldstart: their sources, and what builds them."""
