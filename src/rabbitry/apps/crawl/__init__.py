"""Crawling web sites: crawlers fetch, processors extract, a keeper decides what to fetch and stores the index.

Public is only `plugin`, which Rabbitry loads through its entry point.
"""
