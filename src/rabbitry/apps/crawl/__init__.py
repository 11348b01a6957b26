"""Crawling web sites: crawlers fetch, processors extract, a keeper decides what to fetch and stores the index.

For Rabbitry alone, which loads `plugin` through its entry point.
"""
