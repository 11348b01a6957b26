"""Crawling web sites: crawlers fetch, processors extract, a keeper decides and keeps the index.

For Rabbitry alone, which takes `plugin` by its entry point.
"""
