"""Chapters of the report that go to the bottom of one subject: a section each, from studies of networks.

A chapter is a pure function; every number in its sentences is computed when the report is written.
"""
