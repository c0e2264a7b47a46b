"""Answers in outside ids."""
