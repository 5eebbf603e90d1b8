"""Scoring finished runs."""
